#!/usr/bin/env bash
# Builds the image of this checkout with Cloud Build, so that neither Docker nor Python is needed here.
#
# use: launch/gke/build.sh --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG [flags]
#
#   --image=IMAGE         where it goes (Artifact Registry)
#   --extras=tpu,hub      packages in it (extras of pyproject.toml); GPUs: cuda,hub
#   --project=PROJECT     default: gcloud's own
#   --dry-run             print the command, touch nothing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
image='' extras=tpu,hub project=''
parse_flags "image extras project" "dry-run" "$@"
((!${#stage_args[@]})) || die "${stage_args[0]}: only flags are taken; --help lists them"
need image extras
need_tool gcloud "https://cloud.google.com/sdk/docs/install"
cd "$root"
# ^;^ makes ; what separates the substitutions, since extras hold commas (gcloud topic escaping).
build=(gcloud builds submit --config=launch/gke/cloudbuild.yaml --substitutions="^;^_IMAGE=$image;_EXTRAS=$extras")
[[ -z $project ]] || build+=(--project="$project")
run "${build[@]}" .
