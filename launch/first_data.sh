#!/usr/bin/env bash
# Writes a small data set for the first run anywhere: sums with worked answers, problems.jsonl and traces.jsonl.
#
# use: launch/first_data.sh DIR
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
parse_flags "" "" "$@"
((${#stage_args[@]} == 1)) || die "one directory is needed: launch/first_data.sh DIR"
directory=${stage_args[0]}
mkdir -p "$directory"
: >"$directory/problems.jsonl"
: >"$directory/traces.jsonl"
for ((i = 0; i < 1024; i++)); do
  a=$((i * 37 % 100)) b=$((i * 11 % 97))
  printf '{"schema": "problem/1", "id": "sum-%d", "problem": "What is %d + %d?", "answer": "%d"}\n' "$i" "$a" "$b" $((a + b)) >&3
  printf '{"schema": "trace/1", "problem_id": "sum-%d", "sample": 0, "response": "%d + %d = %d. \\\\boxed{%d}", "response_tokens": 24, "finish_reason": "stop", "teacher": "arithmetic"}\n' \
    "$i" "$a" "$b" $((a + b)) $((a + b)) >&4
done 3>>"$directory/problems.jsonl" 4>>"$directory/traces.jsonl"
