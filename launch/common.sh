# shellcheck shell=bash
# What the launchers share: flags, quoting, dry runs, the check of a stage's command, and the one restart rule.
# Sourced, not run. Client-side scripts stay within bash 3.2, which is what macOS has.

readonly EXIT_PREEMPTED=75 # w2sr has saved a checkpoint: the same command goes on from it
readonly EXIT_USAGE=2      # a wrong flag stays wrong: never tried again
dry_run='' backoff=30 max_failures=3

say() { printf '%s: %s\n' "${0##*/}" "${*//$'\n'/ }" >&2; }

die() {
  say "$*"
  exit $EXIT_USAGE
}

# The comment at the top of the script is its help.
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }

# parse_flags "NAMES THAT TAKE A VALUE" "SWITCHES" "$@": sets one variable a flag (--max-failures=3 sets max_failures).
# The first word that is no flag begins the stage's command; everything from there on is left in stage_args, untouched.
parse_flags() {
  local _values=" $1 " _switches=" $2 " _flag # underscores: the flags are variables too
  shift 2
  while (($#)); do
    _flag=${1%%=*}
    _flag=${_flag#--}
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --*=*)
        [[ $_flag != *" "* && $_values == *" $_flag "* ]] || die "no flag ${1%%=*}; --help lists them"
        printf -v "${_flag//-/_}" '%s' "${1#*=}"
        ;;
      -*)
        if [[ $_flag != *" "* && $_values == *" $_flag "* ]]; then die "--$_flag needs a value: --$_flag=VALUE"; fi
        [[ $_flag != *" "* && $_switches == *" $_flag "* ]] || die "no flag $1; --help lists them"
        printf -v "${_flag//-/_}" 1
        ;;
      *) break ;;
    esac
    shift
  done
  stage_args=("$@")
}

# need NAME...: flags that have no default.
need() {
  local _name _variable
  for _name in "$@"; do
    _variable=${_name//-/_}
    [[ -n ${!_variable} ]] || die "--$_name=VALUE is missing; --help says what it is"
  done
}

# need_tool TOOL HINT; a dry run needs none.
need_tool() { [[ -n $dry_run ]] || command -v "$1" >/dev/null || die "$1 is not installed: $2"; }

need_numbers() {
  local _name _variable
  for _name in "$@"; do
    _variable=${_name//-/_}
    [[ ${!_variable} =~ ^(0|[1-9][0-9]*)$ ]] || die "--$_name=${!_variable} is no whole number"
  done
}

# quote WORD...: one line that a shell reads back as these words.
quote() {
  local word line='' mark="'" escaped="'\\''"
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=$mark${word//$mark/"$escaped"}$mark
    line+=${line:+ }$word
  done
  printf '%s\n' "$line"
}

# run COMMAND...: runs it; in a dry run prints it.
run() { if [[ -n $dry_run ]]; then quote "$@"; else "$@"; fi; }

# check_stage MOUNT: stage_args hold a stage and a workdir that outlives the hosts (MOUNT may be empty).
check_stage() {
  local mount=$1 word workdir=''
  ((${#stage_args[@]})) || die "no stage; end the command with: STAGE --config=FILE.py --workdir=${mount:-DIR}/NAME"
  for word in "${stage_args[@]}"; do
    case $word in --workdir=* | -workdir=*) workdir=${word#*=} ;; esac
  done
  case $workdir in
    '') die "--workdir=${mount:-DIR}/NAME is missing after the stage" ;;
    # w2sr takes paths: it would make a directory called gs: where it stands.
    gs://*) die "--workdir=$workdir: w2sr writes to paths; the bucket is mounted: --workdir=${mount:-DIR}/NAME" ;;
    "$mount"/*) ;;
    *) [[ -z $mount ]] || die "--workdir=$workdir is not in the bucket, so it would be lost: --workdir=$mount/NAME" ;;
  esac
}

# add_flags FLAG...: puts them behind the stage's name.
add_flags() { stage_args=("${stage_args[0]}" "$@" "${stage_args[@]:1}"); }

# keep_running COMMAND...: the restart rule. Exit code 75 means: the same command again, for ever. Any other code is an
# error: tried again max_failures times, waiting backoff seconds, then twice as long each time. Errors more than an hour
# apart are not counted together.
keep_running() {
  local failures=0 code began pause
  while true; do
    began=$SECONDS
    code=0
    "$@" || code=$?
    case $code in
      0) return 0 ;;
      "$EXIT_USAGE") return "$code" ;;
      "$EXIT_PREEMPTED")
        say "preempted (exit code 75); the same command again in $backoff s"
        sleep "$backoff"
        continue
        ;;
    esac
    if ((SECONDS - began > 3600)); then failures=0; fi
    failures=$((failures + 1))
    if ((failures > max_failures)); then
      say "exit code $code; gave up after $failures tries"
      return "$code"
    fi
    pause=$((backoff << (failures - 1)))
    say "exit code $code (failure $failures of $max_failures); the same command again in $pause s"
    sleep "$pause"
  done
}
