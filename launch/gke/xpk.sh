#!/usr/bin/env bash
# Runs a stage on a GKE cluster that xpk made, with xpk's own command line.
#
# use: launch/gke/xpk.sh --cluster=CLUSTER --type=TYPE --image=IMAGE --storage=STORAGE [flags] STAGE --config=FILE.py
#      --workdir=/mnt/w2sr/NAME
#
#   --cluster=CLUSTER         made by xpk cluster create
#   --type=TYPE               TPU type, as v6e-16 or v5litepod-16
#   --image=IMAGE             what launch/gke/build.sh built
#   --storage=STORAGE         the bucket, attached once by xpk storage attach with --mount-point=/mnt/w2sr
#   --name=w2sr               of the workload
#   --project=P, --zone=Z     default: gcloud's own
#   --spot                    where the cluster makes nodes on demand: spot ones
#   --max-restarts=100        xpk counts preemptions and errors alike
#   --dry-run                 print the command, touch nothing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
cluster='' type='' image='' storage='' name=w2sr project='' zone='' spot='' max_restarts=100
parse_flags "cluster type image storage name project zone max-restarts" "spot dry-run" "$@"
need cluster type image storage
need_numbers max-restarts
check_stage /mnt/w2sr
add_flags --distributed
need_tool xpk "pip install xpk"
# xpk restarts on 42 and 127 to 255 (killed by a signal) and on the codes given here; any other code ends the workload.
create=(xpk workload create --cluster="$cluster" --workload="$name" --tpu-type="$type" --num-slices=1
  --docker-image="$image" --storage="$storage" --restart-on-exit-codes="$EXIT_PREEMPTED" --max-restarts="$max_restarts"
  --command="cd /w2sr_jax && exec $(quote launch/host.sh "${stage_args[@]}")")
[[ -z $project ]] || create+=(--project="$project")
[[ -z $zone ]] || create+=(--zone="$zone")
[[ -z $spot ]] || create+=(--spot)
run "${create[@]}"
