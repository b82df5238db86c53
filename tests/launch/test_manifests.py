"""What GKE and SkyPilot are given: fields and values of their published schemas, and the exit code that restarts."""

import os
import shlex
import subprocess

import jsonschema
import pytest
import yaml

from .conftest import AWKWARD, ROOT

STAGE = ["sft", "--workdir=/mnt/w2sr/a b", AWKWARD]
JOBSET = ["--image=r/p/i:t", "--bucket=b"]
TPU = [*JOBSET, "--topology=4x4"]
GPU = [*JOBSET, "--gpu=nvidia-h100-80gb", "--hosts=2"]


def fields(required, **properties):
    """An object with no other fields than these."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def listed(items):
    return {"type": "array", "items": items, "minItems": 1}


TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
METADATA = fields(["name"], name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)

# Of batch/v1 and v1: the fields that we use.
POD = fields(
    ["metadata", "spec"],
    metadata=fields([], annotations=TEXTS, labels=TEXTS),
    spec=fields(
        ["restartPolicy", "containers"],
        restartPolicy={"const": "Never"},  # a Job with a podFailurePolicy allows no other
        serviceAccountName=TEXT,
        terminationGracePeriodSeconds=NUMBER,
        nodeSelector=TEXTS,
        containers=listed(
            fields(
                ["name", "image", "command", "resources"],
                name=TEXT,
                image=TEXT,
                command=listed(TEXT),
                securityContext=fields([], privileged=FLAG),
                resources=fields(["limits"], limits={"type": "object", "additionalProperties": NUMBER}),
                volumeMounts=listed(fields(["name", "mountPath"], name=TEXT, mountPath=TEXT)),
            )
        ),
        volumes=listed(
            fields(
                ["name"],
                name=TEXT,
                csi=fields(["driver"], driver=TEXT, volumeAttributes=TEXTS),
                emptyDir=fields([], medium=TEXT),
            )
        ),
    ),
)
JOB = fields(
    ["parallelism", "completions", "backoffLimit", "template"],
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    parallelism=NUMBER,
    completions=NUMBER,
    backoffLimit=NUMBER,
    podFailurePolicy=fields(
        ["rules"],
        rules=listed(
            fields(
                ["action"],
                action={"enum": ["FailJob", "FailIndex", "Ignore", "Count"]},
                onExitCodes=fields(
                    ["operator", "values"],
                    containerName=TEXT,
                    operator={"enum": ["In", "NotIn"]},
                    values=listed(NUMBER),
                ),
                onPodConditions=listed(
                    fields(["type", "status"], type=TEXT, status={"enum": ["True", "False", "Unknown"]})
                ),
            )
        ),
    ),
    template=POD,
)
# The CRD jobsets.jobset.x-k8s.io, version v1alpha2.
JOBSET_SCHEMA = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=METADATA,
    spec=fields(
        ["replicatedJobs"],
        failurePolicy=fields(
            [],
            maxRestarts=NUMBER,
            restartStrategy={"enum": ["Recreate", "BlockingRecreate", "InPlaceRestart"]},
            rules=listed(
                fields(
                    ["name", "action"],
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action={
                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob",
                                 "RestartJobAndIgnoreMaxRestarts"]
                    },
                    onJobFailureReasons=listed({"enum": ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes",
                                                         "MaxFailedIndexesExceeded", "PodFailurePolicy"]}),
                    targetReplicatedJobs=listed(TEXT),
                )
            ),
        ),
        replicatedJobs=listed(
            fields(["name", "template"], name=TEXT, replicas=NUMBER, template=fields(["spec"], spec=JOB))
        ),
    ),
)  # fmt: skip

# SkyPilot's task YAML, with the fields that belong into it; `job_recovery` as of 0.14.
SKYPILOT_SCHEMA = fields(
    ["run"],
    name=TEXT,
    workdir=TEXT,
    num_nodes=NUMBER,
    setup=TEXT,
    run=TEXT,
    envs={"type": "object", "additionalProperties": {"type": ["string", "null"]}},
    file_mounts={
        "type": "object",
        "additionalProperties": fields(
            ["source"], source={"type": "string", "pattern": "^gs://"}, mode={"enum": ["MOUNT", "COPY", "MOUNT_CACHED"]}
        ),
    },
    resources=fields(
        [],
        accelerators=TEXT,
        use_spot=FLAG,
        job_recovery=fields(
            [],
            strategy=TEXT,
            max_restarts_on_errors=NUMBER,
            recover_on_exit_codes={"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
        ),
    ),
)


@pytest.fixture
def applied(host):
    """The manifest that jobset.sh gives to kubectl."""

    def apply(*flags):
        host.fake("kubectl", f"cat >{shlex.quote(str(host.log))}.yaml")
        done = host.run("gke/jobset.sh", *flags, *STAGE)
        assert done.returncode == 0, done.stderr
        assert host.calls("kubectl")[-1] == ["kubectl", "apply", "--filename=-"]
        manifest = yaml.safe_load(host.log.with_suffix(".log.yaml").read_text())
        jsonschema.validate(manifest, JOBSET_SCHEMA)
        return manifest

    return apply


def job_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def test_a_tpu_slice_gets_a_pod_a_host(applied):
    job = job_of(applied(*TPU, "--spot"))
    assert job["parallelism"] == job["completions"] == 4
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert {"name": "bucket", "mountPath": "/mnt/w2sr"} in container["volumeMounts"]
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "b"
    # Kubernetes reads $$( as $(
    assert container["command"] == ["launch/host.sh", "sft", "--distributed", STAGE[1], AWKWARD.replace("$(", "$$(")]


def test_gpu_pods_are_told_where_the_first_one_is(applied):
    manifest = applied(*GPU, "--name=try-2")
    job = job_of(manifest)
    assert job["parallelism"] == 2
    [container] = job["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert container["command"][-3:] == [
        "--coordinator=try-2-w-0-0.try-2:8476", "--num_processes=2", "--process_id=$(JOB_COMPLETION_INDEX)",
    ]  # fmt: skip


@pytest.mark.parametrize("flags", [TPU, GPU])
def test_only_75_and_a_lost_node_restart_without_being_counted(applied, flags):
    manifest = applied(*flags, "--max-failures=7")
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    [rule] = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = job_of(manifest)
    assert job["backoffLimit"] == 0
    codes, lost = job["podFailurePolicy"]["rules"]
    assert codes == {"action": "FailJob", "onExitCodes": {"containerName": "w2sr", "operator": "In", "values": [75]}}
    assert lost["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert job["template"]["spec"]["containers"][0]["name"] == "w2sr"


def test_a_queue_of_kueue_is_named_in_the_labels(applied):
    assert applied(*TPU, "--queue=team")["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}


def test_the_dry_run_of_the_jobset_is_a_command_that_applies_the_same_manifest(applied, host):
    manifest = applied(*TPU)
    printed = host.run("gke/jobset.sh", "--dry-run", *TPU, *STAGE).stdout
    subprocess.run(["bash", "-c", printed], env=host.environment, check=True, timeout=60)
    assert yaml.safe_load(host.log.with_suffix(".log.yaml").read_text()) == manifest
    assert len(host.calls("kubectl")) == 2


def test_the_jobset_is_deleted_by_name(host):
    host.fake("kubectl")
    assert host.run("gke/jobset.sh", "delete", "--name=n", "--namespace=s").returncode == 0
    assert host.calls() == [["kubectl", "delete", "jobset", "n", "--namespace=s"]]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([*JOBSET, "--topology=4by4"], "as 4x4 or 2x2x4"),
        ([*JOBSET, "--topology=1x3"], "no multiple of --chips=4"),
        ([*JOBSET, "--topology=4x4", "--chips=0"], "at least 1"),
        ([*TPU, "--gpu=x", "--hosts=2"], "--topology goes with --tpu"),
        ([*JOBSET, "--gpu=x"], "--hosts=VALUE is missing"),
        ([*TPU, "--name=Not_a_name"], "lower-case letters"),
        ([*TPU, "--bucket=b\nx: y"], "is no name"),
        ([*TPU, "--image=a b"], "is no name"),
    ],
)
def test_a_jobset_that_cannot_be_is_refused(host, flags, says):
    assert says in host.fails("gke/jobset.sh", *flags, "sft", "--workdir=/mnt/w2sr/x")


def test_a_line_break_in_an_argument_is_refused(host):
    done = host.run("gke/jobset.sh", *TPU, "sft", "--workdir=/mnt/w2sr/x", "--config.note=a\nb")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "line break" in done.stderr
    assert not host.log.exists()


def test_the_cloud_build_file_builds_what_the_flags_say():
    build = yaml.safe_load((ROOT / "launch/gke/cloudbuild.yaml").read_text())
    [step] = build["steps"]
    assert {"--build-arg=EXTRAS=${_EXTRAS}", "--tag=${_IMAGE}", "--file=launch/gke/Dockerfile"} <= set(step["args"])
    assert build["images"] == ["${_IMAGE}"]
    assert (ROOT / "launch/gke/Dockerfile").is_file()


def test_skypilot_recovers_on_75_and_only_so_often_on_errors():
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    jsonschema.validate(task, SKYPILOT_SCHEMA)
    recovery = task["resources"]["job_recovery"]
    assert recovery == {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]}
    assert task["file_mounts"]["/mnt/w2sr"]["mode"] == "MOUNT"


def test_each_skypilot_node_runs_the_stage_with_its_rank(tmp_path):
    """The run section, with the variables that SkyPilot sets, and a host.sh that says how it was called."""
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/host.sh").write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\nexit 75\n")
    (tmp_path / "launch/host.sh").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", task["run"]],
        cwd=tmp_path,
        env=os.environ
        | {"W2SR_STAGE": shlex.join(STAGE), "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2",
           "SKYPILOT_NODE_RANK": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 75
    assert done.stdout.splitlines() == [
        "sft", "--distributed", "--coordinator=10.0.0.1:8476", "--num_processes=2", "--process_id=1", *STAGE[1:],
    ]  # fmt: skip
