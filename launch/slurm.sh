#!/usr/bin/env bash
# Runs a stage on several GPU nodes under Slurm, one process a GPU; requeued on preemption, node failure and time limit.
#
# use: launch/slurm.sh [flags] STAGE --config=FILE.py --workdir=DIR          on a login node: submits itself
#      sbatch [sbatch's flags] launch/slurm.sh [flags] STAGE ...             the same, from the repository's root
#
#   --nodes=2             nodes
#   --gpus=8              GPUs a node
#   --partition=NAME, --account=NAME, --time=HH:MM:SS, --name=w2sr            as sbatch takes them
#   --extras=cuda,hub     packages that the first node installs into .venv; empty: they are there
#   --bucket=BUCKET       Cloud Storage bucket, mounted on every node; default: the workdir is on a shared file system
#   --mount=/mnt/w2sr     where
#   --max-failures=3      errors in a row before it gives up
#   --backoff=30          seconds before the next try, doubled with each error
#   --dry-run             print the commands, touch nothing
#
# The repository has to be on a file system that all nodes share.

#SBATCH --job-name=w2sr
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@180
set -euo pipefail
# Slurm runs a copy of this file that lies elsewhere.
root=${SLURM_SUBMIT_DIR:-}
[[ -n ${SLURM_JOB_ID:-} ]] || root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ ! -e $root/launch/common.sh ]]; then
  echo "slurm.sh: $root is not the repository; submit from the repository's root" >&2
  exit 2
fi
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
nodes=2 gpus=8 partition='' account='' time='' name=w2sr extras=cuda,hub bucket='' mount=/mnt/w2sr
parse_flags "nodes gpus partition account time name extras bucket mount max-failures backoff" "dry-run" "$@"
need_numbers nodes gpus max-failures backoff
check_stage "${bucket:+$mount}"
cd "$root"

# JAX gives the process with local id I the I-th GPU of its node, so every process has to see all of them: one task a
# GPU, and no --gpus-per-task. TERM 180 s before the time limit goes to the tasks, not to this script, so that the run
# saves a checkpoint and ends with 75.
submit=(sbatch --job-name="$name" --nodes="$nodes" --gpus-per-node="$gpus" --ntasks-per-node="$gpus" --requeue
  --signal=TERM@180 --open-mode=append --output=slurm-%j.log --chdir="$root")
[[ -z $partition ]] || submit+=(--partition="$partition")
[[ -z $account ]] || submit+=(--account="$account")
[[ -z $time ]] || submit+=(--time="$time")
submit+=(launch/slurm.sh)
for word in "${@:1:$#-${#stage_args[@]}}"; do [[ $word == --dry-run ]] || submit+=("$word"); done
submit+=("${stage_args[@]}")

add_flags --distributed
# --wait, not --kill-on-bad-exit: after the first 75 the others still finish the checkpoint. The bucket is mounted in the
# step itself, since Slurm ends what a step leaves behind.
step=(srun --label --kill-on-bad-exit=0 --wait=120 launch/host.sh)
[[ -z $bucket ]] || step+=(--bucket="$bucket" --mount="$mount")
step+=("${stage_args[@]}")

ask=(squeue --noheader --format=%T --jobs) # and the job's number: its state

prepare() { [[ -z $extras ]] || run launch/host.sh --extras="$extras"; }

# srun exits with the highest code of all tasks.
try() {
  local code=0 state
  "${step[@]}" || code=$?
  if ((code == EXIT_PREEMPTED)); then
    # A job that its owner cancels saves and ends with 75 as well, and stays cancelled. One that Slurm preempts is no
    # longer RUNNING either: Slurm requeues it by itself.
    state=$("${ask[@]}" "$SLURM_JOB_ID") || state=''
    if [[ $state == RUNNING ]]; then
      say "told to stop (exit code 75); back into the queue"
      scontrol requeue "$SLURM_JOB_ID" || true
    else
      say "told to stop (exit code 75); the job's state is ${state:-not known}, so this does not requeue it"
    fi
    exit $EXIT_PREEMPTED
  fi
  return "$code"
}

if [[ -n $dry_run ]]; then
  if [[ -z ${SLURM_JOB_ID:-} ]]; then
    quote "${submit[@]}"
    echo "# in the job:"
  fi
  prepare
  quote "${step[@]}"
  echo "# exit code 75: where the state of the job is RUNNING, which it is not after scancel, back into the queue:"
  quote "${ask[@]}" "${SLURM_JOB_ID:-JOB_ID}"
  quote scontrol requeue "${SLURM_JOB_ID:-JOB_ID}"
elif [[ -z ${SLURM_JOB_ID:-} ]]; then
  need_tool sbatch "run this on a login node of a Slurm cluster"
  "${submit[@]}"
else
  trap : TERM # Slurm tells the tasks too; this script has to outlive them to requeue the job
  prepare
  keep_running try
fi
