#!/usr/bin/env bash
# Runs a stage on every worker of a Cloud TPU slice, and again after each preemption until it is done.
#
# use: launch/tpu_pod.sh --zone=ZONE --type=TYPE --bucket=BUCKET [flags] STAGE --config=FILE.py --workdir=/mnt/w2sr/NAME
#      launch/tpu_pod.sh delete --zone=ZONE [--name=NAME] [--project=PROJECT]
#
#   --zone=ZONE           zone that has the type, as europe-west4-a
#   --type=TYPE           accelerator type, as v6e-16, v5litepod-16 or v5p-32
#   --bucket=BUCKET       Cloud Storage bucket, mounted on every worker
#   --mount=/mnt/w2sr     where; the workdir lies in there
#   --name=w2sr           of the queued resource and of its TPU
#   --project=PROJECT     default: gcloud's own
#   --runtime=VERSION     TPU software; default: the one for the type
#   --service-account=ID  of the VMs; default: the project's Compute Engine account
#   --spot                preemptible, much cheaper; deleted, made anew and resumed when it is taken away
#   --ref=HEAD            commit of this repository that runs
#   --extras=tpu,hub      packages that every worker installs (extras of pyproject.toml)
#   --max-failures=3      errors in a row before it gives up (preemption is no error)
#   --backoff=30          seconds before the next try, doubled with each error
#   --poll=30             seconds between two looks at the state
#   --dry-run             print the commands, touch nothing
#
# It ends when the stage has ended; the TPU stays until you delete it. Interrupted, the same command takes over again.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
zone='' type='' bucket='' mount=/mnt/w2sr name=w2sr project='' runtime='' service_account='' spot='' ref=HEAD extras=tpu,hub poll=30
action=run
if [[ ${1:-} == delete ]]; then
  action=delete
  shift
fi
parse_flags "zone type bucket mount name project runtime service-account ref extras max-failures backoff poll" "spot dry-run" "$@"
need zone
need_tool gcloud "https://cloud.google.com/sdk/docs/install"
need_tool git "the code is sent with git archive"
place=(--zone="$zone")
[[ -z $project ]] || place+=(--project="$project")
where=("${place[@]}" --quiet)
delete=(gcloud compute tpus queued-resources delete "$name" --force "${where[@]}")
if [[ $action == delete ]]; then
  run "${delete[@]}"
  exit
fi

need type bucket extras
need_numbers max-failures backoff poll
check_stage "$mount"
add_flags --distributed
cd "$root"
if [[ -z $runtime ]]; then
  case $type in # "TPU software versions" in Cloud TPU's documentation
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v5litepod-* | v5e-*) runtime=v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
    *) die "--type=$type: no runtime version is known for it; add --runtime=VERSION" ;;
  esac
fi
git rev-parse --quiet --verify "$ref^{commit}" >/dev/null || die "--ref=$ref: no such commit here"

create=(gcloud compute tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$type"
  --runtime-version="$runtime" "${where[@]}")
[[ -z $service_account ]] || create+=(--service-account="$service_account")
[[ -z $spot ]] || create+=(--spot)
list=(gcloud compute tpus queued-resources list "${where[@]}" '--format=value(name.basename(),state.state)')
archive=${TMPDIR:-/tmp}/w2sr_jax-$name.tar.gz
# Not `queued-resources ssh`: that one works in batches of 64 workers, of which the first would wait for the others.
on_workers=(gcloud compute tpus tpu-vm ssh "$name" --worker=all "${where[@]}")
prepare=(launch/host.sh --extras="$extras" --bucket="$bucket" --mount="$mount")
unpack="mkdir -p w2sr_jax && tar -xzf $(quote "${archive##*/}") -C w2sr_jax && cd w2sr_jax"

state() { "${list[@]}" | awk -v name="$name" '$1 == name { print $2 }'; }

# Returns when the TPU is there: 0, or 1 where it cannot be had.
wait_until_active() {
  local now last=''
  while true; do
    now=$(state) || return 1
    [[ $now == "$last" ]] || say "$name: ${now:-not there}"
    last=$now
    case $now in
      ACTIVE) return 0 ;;
      '') "${create[@]}" || return 1 ;;
      SUSPENDED | SUSPENDING) "${delete[@]}" || return 1 ;;
      FAILED)
        say "$name could not be made; its reason: gcloud compute tpus queued-resources describe $(quote "$name" "${place[@]}")"
        "${delete[@]}" || return 1
        return 1
        ;;
    esac
    sleep "$poll"
  done
}

send_and_run() {
  run git archive --format=tar.gz --output="$archive" "$ref" || return 1
  run gcloud compute tpus tpu-vm scp "$archive" "$name:" --worker=all "${where[@]}" || return 1
  # All workers are prepared before the first one starts, since they wait for each other only for minutes.
  run "${on_workers[@]}" --command="$unpack && $(quote "${prepare[@]}" --stop)" || return 1
  run "${on_workers[@]}" --command="cd w2sr_jax && exec $(quote "${prepare[@]}" "${stage_args[@]}")"
}

# One try. gcloud exits with the first worker's code that is not 0, or with 255 for a connection that broke; so the
# state says whether the TPU was taken away.
try() {
  local code=0 now
  wait_until_active || return 1
  send_and_run || code=$?
  if ((code == 0 || code == EXIT_PREEMPTED)); then return "$code"; fi
  if ((code == 255)); then sleep "$poll"; fi # the state follows the loss of the hosts a little later
  now=$(state) || return "$code"
  [[ $now == ACTIVE ]] || return $EXIT_PREEMPTED
  return "$code"
}

if [[ -n $dry_run ]]; then
  quote "${create[@]}"
  echo "# until it says ACTIVE:"
  quote "${list[@]}"
  send_and_run
  echo "# exit code 75: the last four again; state SUSPENDED: everything again, after"
  quote "${delete[@]}"
  exit
fi
git diff --quiet HEAD || say "changes that are not committed are not sent"
keep_running try
say "done; the TPU is still there and costs money: $(quote "$0" delete --name="$name" "${place[@]}")"
