#!/usr/bin/env bash
# What one host of a pod does: Python and packages, the bucket, then w2sr. What is there already is not done again.
#
# use: launch/host.sh [flags] [STAGE ARGS...]       without a stage it only prepares
#
#   --extras=tpu,hub      packages to install (extras of pyproject.toml); none: they are there
#   --bucket=BUCKET       Cloud Storage bucket to mount; none: no mount
#   --mount=/mnt/w2sr     where
#   --stop                first end a w2sr that an earlier launch left running on this host
#   --dry-run             print the commands, touch nothing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
extras='' bucket='' mount=/mnt/w2sr stop=''
parse_flags "extras bucket mount" "stop dry-run" "$@"
cd "$root"
as_root=()
[[ $EUID == 0 ]] || as_root=(sudo)

# A launcher whose connection broke leaves its processes behind, and they hold the accelerator and the workdir.
# SIGTERM lets them save a checkpoint.
stop_earlier() {
  local pattern="$root/[.]venv/bin/w2sr " second
  if [[ -n $dry_run ]]; then
    quote pkill -TERM -u "$EUID" -f "$pattern"
    return
  fi
  pkill -TERM -u "$EUID" -f "$pattern" || return 0
  for ((second = 0; second < 120; second++)); do
    pgrep -u "$EUID" -f "$pattern" >/dev/null || return 0
    sleep 1
  done
  pkill -KILL -u "$EUID" -f "$pattern" || true
}

# TPU VM images have Python 3.10. vllm-tpu wants exactly 3.12.
find_python() {
  if [[ -x .venv/bin/python ]] || python3.12 -c '' >/dev/null 2>&1; then return; fi
  run python3 -m pip install --quiet --user uv
  run python3 -m uv python install 3.12
  [[ -n $dry_run ]] || PATH=$(dirname "$(python3 -m uv python find 3.12)"):$PATH
}

mount_bucket() {
  local list=/etc/apt/sources.list.d/gcsfuse.list key=/usr/share/keyrings/cloud.google.asc
  local from=https://packages.cloud.google.com/apt
  if ! command -v gcsfuse >/dev/null; then
    run "${as_root[@]}" curl -fsSL --retry 5 -o "$key" "$from/doc/apt-key.gpg"
    # shellcheck disable=SC2016
    run "${as_root[@]}" sh -c 'echo "deb [signed-by=$1] $2 gcsfuse-$(lsb_release -cs) main" >"$3"' sh "$key" "$from" "$list"
    # A fresh VM holds apt's lock for its own upgrades.
    run "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=600 update
    run "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=600 install -y gcsfuse
  fi
  if mountpoint -q "$mount" 2>/dev/null; then return; fi
  if grep -qs " $mount fuse" /proc/mounts; then run fusermount -uz "$mount"; fi # its gcsfuse was killed
  if [[ ! -w $mount ]]; then
    run "${as_root[@]}" mkdir -p "$mount"
    run "${as_root[@]}" chown "$EUID" "$mount"
  fi
  # Hosts have to see each other's files at once. On large machines gcsfuse caches metadata for ever unless told
  # otherwise (docs/semantics.md of gcsfuse, "Stat caching").
  run gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$bucket" "$mount" 9>&-
}

if [[ -n $stop ]]; then stop_earlier; fi
if [[ -n $bucket && -n $dry_run ]]; then
  mount_bucket
elif [[ -n $bucket ]]; then # one process of a host mounts, the others wait
  (flock 9 && mount_bucket) 9>"${TMPDIR:-/tmp}/w2sr-mount-$EUID.lock"
fi
if [[ -n $extras ]]; then
  find_python
  run launch/setup.sh "$extras"
fi
if ((${#stage_args[@]})); then run exec "$root/.venv/bin/w2sr" "${stage_args[@]}"; fi
