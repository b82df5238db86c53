#!/usr/bin/env bash
# Runs a stage on GKE as a JobSet: one pod a host of one TPU slice, or one pod a GPU node. The cluster restarts it.
#
# use: launch/gke/jobset.sh --image=IMAGE --bucket=BUCKET --topology=4x4 [flags] STAGE --config=FILE.py --workdir=/mnt/w2sr/NAME
#      launch/gke/jobset.sh --image=IMAGE --bucket=BUCKET --gpu=nvidia-h100-80gb --hosts=2 [flags] STAGE ...
#      launch/gke/jobset.sh delete [--name=NAME] [--namespace=NAMESPACE]
#
#   --image=IMAGE             what launch/gke/build.sh built
#   --bucket=BUCKET           Cloud Storage bucket, mounted at /mnt/w2sr in every pod
#   --topology=AxB[xC]        of the TPU slice
#   --tpu=tpu-v6e-slice       its kind, as the node label cloud.google.com/gke-tpu-accelerator has it
#   --gpu=KIND                GPUs instead: the node label cloud.google.com/gke-accelerator
#   --hosts=N                 GPU nodes; of a TPU slice they follow from the topology
#   --chips=4                 TPU chips (or GPUs; then 8) a host
#   --spot                    spot nodes
#   --name=w2sr               of the JobSet
#   --namespace=default       and --service-account=default: of Kubernetes; the account may use the bucket
#   --queue=QUEUE             Kueue's LocalQueue; default: none
#   --max-failures=3          errors before the JobSet fails (preemption is no error)
#   --dry-run                 print the command with the manifest, touch nothing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"
image='' bucket='' topology='' tpu=tpu-v6e-slice gpu='' hosts='' chips='' spot='' name=w2sr namespace=default
service_account=default queue='' mount=/mnt/w2sr port=8476
action=apply
if [[ ${1:-} == delete ]]; then
  action=delete
  shift
fi
parse_flags "image bucket topology tpu gpu hosts chips name namespace service-account queue max-failures" "spot dry-run" "$@"
need_tool kubectl "gcloud components install kubectl gke-gcloud-auth-plugin"
if [[ $action == delete ]]; then
  run kubectl delete jobset "$name" --namespace="$namespace"
  exit
fi
need image bucket
need_numbers max-failures
# Pods are called NAME-w-0-HOST-XXXXX, and a host name has at most 63 characters.
[[ $name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] || die "--name=$name: lower-case letters, digits and -, at most 40"
check_stage "$mount"
if [[ -n $gpu ]]; then
  [[ -z $topology ]] || die "--topology goes with --tpu, --hosts with --gpu"
  need hosts
  chips=${chips:-8} resource=nvidia.com/gpu
  # JAX finds the others by itself on TPUs; $(VAR) is filled in by Kubernetes.
  # shellcheck disable=SC2016
  coordinates=(--coordinator="$name-w-0-0.$name:$port" --num_processes="$hosts" '--process_id=$(JOB_COMPLETION_INDEX)')
else
  need topology
  [[ $topology =~ ^[0-9]+x[0-9]+(x[0-9]+)?$ ]] || die "--topology=$topology: as 4x4 or 2x2x4"
  chips=${chips:-4} resource=google.com/tpu coordinates=()
  need_numbers chips
  ((chips)) || die "--chips=0: at least 1"
  all=$((${topology//x/*}))
  ((all % chips == 0)) || die "--topology=$topology has $all chips, which are no multiple of --chips=$chips"
  hosts=$((all / chips))
fi
need_numbers hosts chips
for word in "$image" "$bucket" "$namespace" "$service_account" "$queue" "$gpu" "$tpu"; do
  [[ $word =~ ^[A-Za-z0-9._:/@-]*$ ]] || die "$(quote "$word") is no name of Kubernetes, Cloud Storage or an image"
done

# json WORD...: a YAML list. Kubernetes would fill $(...) in, so that of the user is escaped.
json() {
  # shellcheck disable=SC2016
  local word list='' open='$(' escaped='$$('
  for word in "$@"; do
    [[ $word != *[[:cntrl:]]* ]] || die "an argument holds a line break or another control character: $(quote "$word")"
    word=${word//\\/\\\\}
    word=${word//\"/\\\"}
    list+=${list:+, }\"${word//"$open"/"$escaped"}\"
  done
  printf '[%s]' "$list"
}
# Ours come last, unescaped.
arguments=$(json launch/host.sh "${stage_args[0]}" --distributed "${stage_args[@]:1}")
for word in ${coordinates[@]+"${coordinates[@]}"}; do arguments="${arguments%]}, \"$word\"]"; done

selector=("$(if [[ -n $gpu ]]; then echo "cloud.google.com/gke-accelerator: $gpu"; else echo "cloud.google.com/gke-tpu-accelerator: $tpu"; fi)")
[[ -z $topology ]] || selector+=("cloud.google.com/gke-tpu-topology: $topology")
[[ -z $spot ]] || selector+=('cloud.google.com/gke-spot: "true"')

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  namespace: $namespace
$(if [[ -n $queue ]]; then printf '  labels:\n    kueue.x-k8s.io/queue-name: %s\n' "$queue"; fi)
$(if [[ -z $gpu ]]; then printf '  annotations:\n    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool\n'; fi)
spec:
  failurePolicy:
    maxRestarts: $max_failures # for every other exit code
    rules:
      - name: preempted # exit code 75, or the node was taken away: without counting
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: w
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          parallelism: $hosts
          completions: $hosts
          backoffLimit: 0 # all pods start again together or not at all
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {containerName: w2sr, operator: In, values: [$EXIT_PREEMPTED]}
              - action: FailJob
                onPodConditions: [{type: DisruptionTarget, status: "True"}]
          template:
            metadata:
              annotations:
                gke-gcsfuse/volumes: "true"
                gke-gcsfuse/cpu-limit: "0" # none: the default is too small for checkpoints
                gke-gcsfuse/memory-limit: "0"
                gke-gcsfuse/ephemeral-storage-limit: "0"
            spec:
              restartPolicy: Never
              serviceAccountName: $service_account
              terminationGracePeriodSeconds: 120 # to save a checkpoint; a spot node gives less
              nodeSelector:
$(printf '                %s\n' "${selector[@]}")
              containers:
                - name: w2sr
                  image: $image
                  command: $arguments
                  securityContext: {privileged: $(if [[ -n $gpu ]]; then echo false; else echo true; fi)}
                  resources:
                    limits: {$resource: $chips}
                  volumeMounts:
                    - {name: bucket, mountPath: $mount}
                    - {name: shm, mountPath: /dev/shm}
              volumes:
                - name: bucket
                  csi:
                    driver: gcsfuse.csi.storage.gke.io
                    volumeAttributes:
                      bucketName: $bucket
                      # Hosts have to see each other's files at once.
                      mountOptions: implicit-dirs,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0
                - name: shm
                  emptyDir: {medium: Memory}
YAML
}

document=$(manifest | awk 'NF') # without the empty lines of what was left out
if [[ -n $dry_run ]]; then
  printf "kubectl apply --filename=- <<'YAML'\n%s\nYAML\n" "$document"
else
  kubectl apply --filename=- <<<"$document"
  say "look at it: kubectl get jobset,pods --namespace=$namespace; kubectl logs --follow --namespace=$namespace job/$name-w-0"
fi
