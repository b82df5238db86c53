#!/usr/bin/env bash
# Runs a stage on GPU nodes of any cloud as a managed SkyPilot job (launch/skypilot.yaml), which SkyPilot recovers.
#
# use: launch/skypilot.sh --bucket=BUCKET [flags] STAGE --config=FILE.py --workdir=/mnt/w2sr/NAME
#
#   --bucket=BUCKET       Cloud Storage bucket, mounted at /mnt/w2sr on every node
#   --nodes=2             nodes
#   --gpus=H100:8         kind and number of GPUs a node
#   --infra=INFRA         as gcp/us-central1; default: the cheapest that has them
#   --name=w2sr           of the job
#   --extras=cuda,hub     packages that every node installs (extras of pyproject.toml)
#   --on-demand           no spot machines
#   --dry-run             print the command, touch nothing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
bucket='' nodes=2 gpus=H100:8 infra='' name=w2sr extras=cuda,hub on_demand=''
parse_flags "bucket nodes gpus infra name extras" "on-demand dry-run" "$@"
need bucket extras
need_numbers nodes
check_stage /mnt/w2sr
need_tool sky "pip install 'skypilot[gcp]', then sky check"
cd "$root"
start=(sky jobs launch --name="$name" --num-nodes="$nodes" --gpus="$gpus" --env "W2SR_BUCKET=$bucket"
  --env "W2SR_EXTRAS=$extras" --env "W2SR_STAGE=$(quote "${stage_args[@]}")" --yes --detach-run)
[[ -z $infra ]] || start+=(--infra="$infra")
if [[ -n $on_demand ]]; then start+=(--no-use-spot); else start+=(--use-spot); fi
run "${start[@]}" launch/skypilot.yaml
