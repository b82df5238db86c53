#!/usr/bin/env bash
# Runs a stage as several processes of this machine, connected over loopback: a pod in small, for trying things out.
#
# use: launch/local.sh [flags] STAGE --config=FILE.py --workdir=DIR
#
#   --processes=2         how many
#   --devices=N           fake CPU devices a process; default: what JAX finds
#   --logs=DIR            process-0.log, process-1.log ...; default: WORKDIR/logs
#   --grace=60            seconds that the others have to end once one has ended
#   --max-failures=0      errors in a row before it gives up (exit code 75 is no error)
#   --backoff=1           seconds before the next try, doubled with each error
#   --program=PATH        what runs; default: .venv/bin/w2sr
#   --dry-run             print the commands, touch nothing
#
# One process that fails ends all. Exit code 75 of any (it was told to stop and saved a checkpoint) starts all again.
# SIGTERM to this script goes to every process, and it ends with their code.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
processes=2 devices='' logs='' grace=60 program=$root/.venv/bin/w2sr
max_failures=0 backoff=1
parse_flags "processes devices logs grace max-failures backoff program" "dry-run" "$@"
need_numbers processes grace max-failures backoff
((processes > 0)) || die "--processes=$processes: at least 1"
check_stage ''
if [[ -z $logs ]]; then
  for word in "${stage_args[@]}"; do
    case $word in --workdir=* | -workdir=*) logs=${word#*=}/logs ;; esac
  done
fi
[[ -n $dry_run || -x $program ]] || die "$program is not there: make setup"
environment=()
if [[ -n $devices ]]; then
  need_numbers devices
  environment=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$devices")
fi

# A port that nothing listens on; a new one each time, since the last one may linger.
free_port() {
  local port
  while true; do
    port=$((20000 + RANDOM % 20000))
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  printf '%s\n' "$port"
}

# command_of INDEX PORT: sets words, the command of one process.
command_of() {
  words=(${environment[@]+"${environment[@]}"} "$program" "${stage_args[0]}" --distributed
    --coordinator="127.0.0.1:$2" --num_processes="$processes" --process_id="$1" "${stage_args[@]:1}")
}

pids=() stopping=''
tell_all() { ((!${#pids[@]})) || kill "-$1" "${pids[@]}" 2>/dev/null || true; }
# shellcheck disable=SC2329 # the trap calls it
stop() {
  stopping=1
  tell_all TERM
}
trap stop TERM INT
trap 'tell_all KILL' EXIT

# One try. The first code that is not 0 counts: what the others end with after that is its consequence.
try() {
  local port index pid code first=0 ended deadline='' words
  [[ -z $stopping ]] || exit $EXIT_PREEMPTED
  port=$(free_port)
  mkdir -p "$logs"
  pids=()
  for ((index = 0; index < processes; index++)); do
    command_of "$index" "$port"
    "${words[@]}" </dev/null >>"$logs/process-$index.log" 2>&1 &
    pids[index]=$!
  done
  # A signal that came meanwhile has not reached those that were started after it.
  [[ -z $stopping ]] || tell_all TERM
  say "$processes processes; logs: $logs/process-*.log"
  while ((${#pids[@]})); do
    ended=()
    for index in "${!pids[@]}"; do
      pid=${pids[index]}
      if kill -0 "$pid" 2>/dev/null; then continue; fi
      unset "pids[$index]"
      code=0
      wait "$pid" || code=$?
      ended+=("$code:$index")
      [[ -n $deadline ]] || deadline=$((SECONDS + grace))
    done
    if ((!first)) && [[ " ${ended[*]}" == *" $EXIT_PREEMPTED:"* ]]; then
      first=$EXIT_PREEMPTED
    fi
    for index in "${!ended[@]}"; do
      code=${ended[index]%:*}
      if ((first || !code)); then continue; fi
      first=$code
      say "process ${ended[index]#*:}: exit code $code; the end of its log:"
      tail -n 5 "$logs/process-${ended[index]#*:}.log" >&2
      tell_all KILL # they would wait for it for ever
    done
    if [[ -n $deadline ]] && ((SECONDS > deadline && ${#pids[@]})); then
      say "${#pids[@]} processes are still there $grace s after the first one ended; killing them"
      tell_all KILL
      deadline=$((SECONDS + grace))
    fi
    sleep 0.2 &
    wait $! || true # a sleep in the foreground would hold a signal back
  done
  [[ -z $stopping ]] || exit "$first"
  return "$first"
}

if [[ -n $dry_run ]]; then
  for ((index = 0; index < processes; index++)); do
    command_of "$index" PORT
    quote "${words[@]}"
  done
  exit
fi
keep_running try
