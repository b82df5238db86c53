"""A dry run prints the commands, every word intact, and calls nothing; a wrong command line is refused in one line."""

import re
import shlex

import pytest

from .conftest import AWKWARD, CLOUD

STAGE = ["sft", "--config=configs/x.py", "--workdir=/mnt/w2sr/a b", AWKWARD]
TPU = ["--zone=z", "--type=v6e-16", "--bucket=b"]
JOBSET = ["--image=i/x:1", "--bucket=b"]

# script -> flags that it needs before a stage
LAUNCHERS = {
    "tpu_pod.sh": TPU,
    "gke/jobset.sh": [*JOBSET, "--topology=4x4"],
    "gke/xpk.sh": ["--cluster=c", "--type=v6e-16", "--image=i", "--storage=s"],
    "slurm.sh": ["--bucket=b"],
    "skypilot.sh": ["--bucket=b"],
    "local.sh": ["--processes=2"],
    "host.sh": ["--extras=tpu", "--bucket=b"],
}
SCRIPTS = [*LAUNCHERS, "gke/build.sh"]


def dry(host, script, *arguments, **environment):
    """The words of each line that the dry run of a launcher prints, without comments."""
    done = host.run(script, "--dry-run", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not host.log.exists(), "a dry run called something"
    return [shlex.split(line) for line in done.stdout.splitlines() if not line.startswith("#")]


def words_after(words, first):
    return words[words.index(first) :]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed(host, script):
    done = host.run(script, "--help")
    assert done.returncode == 0
    assert f"use: launch/{script}" in done.stdout
    assert "--dry-run" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("script", [*SCRIPTS, "first_data.sh"])
@pytest.mark.parametrize("flag", ["--nope", "--nope=1", "-x", "--dry run"])
def test_an_unknown_flag_is_refused_in_one_line(host, script, flag):
    assert "no flag" in host.fails(script, flag)


@pytest.mark.parametrize("script", sorted(LAUNCHERS.keys() - {"host.sh"}))
def test_a_stage_needs_a_workdir_that_survives(host, script):
    flags = LAUNCHERS[script]
    assert "no stage" in host.fails(script, *flags)
    assert "--workdir" in host.fails(script, *flags, "sft")
    assert "gs://" in host.fails(script, *flags, "sft", "--workdir=gs://b/x")
    if script != "local.sh":
        assert "not in the bucket" in host.fails(script, *flags, "sft", "--workdir=runs/x")


@pytest.mark.parametrize(
    ("script", "missing"),
    [("tpu_pod.sh", "zone"), ("gke/jobset.sh", "image"), ("gke/xpk.sh", "cluster"), ("skypilot.sh", "bucket"),
     ("gke/build.sh", "image")],
)  # fmt: skip
def test_a_missing_value_is_named(host, script, missing):
    assert f"--{missing}=VALUE is missing" in host.fails(script)
    assert f"--{missing} needs a value" in host.fails(script, f"--{missing}")


@pytest.mark.parametrize(
    ("script", "tool"),
    [("tpu_pod.sh", "gcloud"), ("gke/jobset.sh", "kubectl"), ("gke/xpk.sh", "xpk"), ("slurm.sh", "sbatch"),
     ("skypilot.sh", "sky")],
)  # fmt: skip
def test_a_missing_tool_is_named_with_what_to_do(host, script, tool):
    for name in CLOUD:
        (host.bin / name).unlink()
    for name in ("bash", "dirname", "git", "env", "awk"):
        (host.bin / name).symlink_to(f"/usr/bin/{name}")
    message = host.fails(script, *LAUNCHERS[script], *STAGE, PATH=str(host.bin))
    assert f"{tool} is not installed: " in message


def test_the_tpu_pod_dry_run_creates_sends_prepares_and_runs(host):
    create, state, archive, send, prepare, start, delete = dry(
        host, "tpu_pod.sh", *TPU, "--spot", "--project=p", "--name=n", "--service-account=a@b", *STAGE
    )
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "n"]
    assert {"--node-id=n", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--spot", "--zone=z",
            "--project=p", "--service-account=a@b"} <= set(create)  # fmt: skip
    assert state[4] == "list"
    assert archive[:2] == ["git", "archive"]
    assert "n:" in send
    assert delete[4:7] == ["delete", "n", "--force"]
    for words in (send, prepare, start):
        assert {"--worker=all", "--zone=z", "--project=p"} <= set(words)
    remote = shlex.split(prepare[-1].removeprefix("--command="))
    prepared = words_after(remote, "launch/host.sh")
    assert prepared[1:] == ["--extras=tpu,hub", "--bucket=b", "--mount=/mnt/w2sr", "--stop"]
    remote = shlex.split(start[-1].removeprefix("--command="))
    assert words_after(remote, "sft") == ["sft", "--distributed", *STAGE[1:]]


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [("v6e-16", "v2-alpha-tpuv6e"), ("v5p-32", "v2-alpha-tpuv5"), ("v5litepod-16", "v2-alpha-tpuv5-lite"),
     ("v4-32", "tpu-ubuntu2204-base")],
)  # fmt: skip
def test_each_tpu_generation_gets_its_software(host, kind, runtime):
    create = dry(host, "tpu_pod.sh", "--zone=z", "--bucket=b", f"--type={kind}", *STAGE)[0]
    assert f"--runtime-version={runtime}" in create


def test_the_tpu_pod_refuses_what_it_cannot_know(host):
    flags = ["--zone=z", "--bucket=b"]
    assert "--runtime=VERSION" in host.fails("tpu_pod.sh", *flags, "--type=v99-8", *STAGE)
    assert "--ref=nope" in host.fails("tpu_pod.sh", *TPU, "--ref=nope", *STAGE)
    assert "whole number" in host.fails("tpu_pod.sh", *TPU, "--poll=soon", *STAGE)


def test_delete_prints_one_command(host):
    [words] = dry(host, "tpu_pod.sh", "--zone=z", *TPU, *STAGE)[-1:]
    done = host.run("tpu_pod.sh", "delete", "--zone=z", "--dry-run")
    assert shlex.split(done.stdout) == words


def test_slurm_submits_itself_with_all_of_its_arguments(host):
    submit, _, step, ask, requeue = dry(
        host, "slurm.sh", "--nodes=4", "--gpus=2", "--partition=p", "--account=a", "--time=1:00:00", *STAGE
    )
    assert submit[0] == "sbatch"
    assert {"--nodes=4", "--gpus-per-node=2", "--ntasks-per-node=2", "--requeue", "--signal=TERM@180",
            "--partition=p", "--account=a", "--time=1:00:00"} <= set(submit)  # fmt: skip
    assert words_after(submit, "launch/slurm.sh")[-len(STAGE) :] == STAGE
    assert "--dry-run" not in submit
    assert step[0] == "srun"
    assert words_after(step, "launch/host.sh")[1:] == ["sft", "--distributed", *STAGE[1:]]
    assert ask[0] == "squeue"
    assert requeue[:2] == ["scontrol", "requeue"]


def test_slurm_mounts_the_bucket_in_the_step_that_runs(host):
    step = dry(host, "slurm.sh", "--bucket=b", *STAGE)[2]
    assert words_after(step, "launch/host.sh")[1:4] == ["--bucket=b", "--mount=/mnt/w2sr", "sft"]


def test_skypilot_hands_the_stage_over_quoted(host):
    [words] = dry(host, "skypilot.sh", "--bucket=b", "--nodes=3", "--gpus=A100:8", "--infra=gcp", *STAGE)
    assert words[:3] == ["sky", "jobs", "launch"]
    assert {"--num-nodes=3", "--gpus=A100:8", "--infra=gcp", "--use-spot", "W2SR_BUCKET=b"} <= set(words)
    [stage] = [word for word in words if word.startswith("W2SR_STAGE=")]
    assert shlex.split(stage.removeprefix("W2SR_STAGE=")) == STAGE
    assert "--no-use-spot" in dry(host, "skypilot.sh", "--bucket=b", "--on-demand", *STAGE)[0]


@pytest.mark.parametrize(("given", "extras"), [([], "hub"), (["domains"], "hub,domains")])
def test_what_reads_training_problems_of_the_hub_is_installed_and_other_extras_may_be(host, given, extras):
    for script, kind in (("tpu_pod.sh", "tpu"), ("slurm.sh", "cuda"), ("skypilot.sh", "cuda"), ("gke/build.sh", "tpu")):
        flags = ["--image=i"] if script == "gke/build.sh" else [*LAUNCHERS[script], *STAGE]
        flags = [f"--extras={kind},hub,{word}" for word in given] + flags
        printed = " ".join(word for words in dry(host, script, *flags) for word in words)
        assert re.search(rf"(?i)extras={kind},{extras}(?![,\w])", printed), script


def test_xpk_runs_the_same_stage_and_restarts_on_75(host):
    [words] = dry(host, "gke/xpk.sh", *LAUNCHERS["gke/xpk.sh"], "--project=p", "--zone=z", "--spot", *STAGE)
    assert words[:3] == ["xpk", "workload", "create"]
    assert {"--restart-on-exit-codes=75", "--tpu-type=v6e-16", "--storage=s", "--spot"} <= set(words)
    [inner] = [word for word in words if word.startswith("--command=")]
    assert words_after(shlex.split(inner), "sft") == ["sft", "--distributed", *STAGE[1:]]


def test_the_image_is_built_by_cloud_build(host):
    [words] = dry(host, "gke/build.sh", "--image=r/p/i:t", "--extras=cuda", "--project=p")
    assert words[:3] == ["gcloud", "builds", "submit"]
    assert "--substitutions=^;^_IMAGE=r/p/i:t;_EXTRAS=cuda" in words
    assert "only flags" in host.fails("gke/build.sh", "--image=i", "sft")


def test_local_gives_each_process_its_number_and_all_the_same_coordinator(host):
    lines = dry(host, "local.sh", "--processes=3", "--devices=4", *STAGE)
    assert len(lines) == 3
    for index, words in enumerate(lines):
        assert words[:3] == ["env", "JAX_PLATFORMS=cpu", "JAX_NUM_CPU_DEVICES=4"]
        assert words_after(words, "sft") == [
            "sft", "--distributed", "--coordinator=127.0.0.1:PORT", "--num_processes=3", f"--process_id={index}",
            *STAGE[1:],
        ]  # fmt: skip
    assert "at least 1" in host.fails("local.sh", "--processes=0", *STAGE)
    assert "make setup" in host.fails("local.sh", *STAGE)


def test_a_host_prepares_then_becomes_w2sr(host):
    (host.bin / "gcsfuse").unlink()
    lines = dry(host, "host.sh", "--extras=tpu", "--bucket=b", "--mount=/nowhere", "--stop", *STAGE)
    joined = [" ".join(words) for words in lines]
    parts = (
        "pkill -TERM",
        "install -y gcsfuse",
        "gcsfuse --implicit-dirs",
        "launch/setup.sh tpu",
        ".venv/bin/w2sr sft",
    )
    order = [next(i for i, line in enumerate(joined) if part in line) for part in parts]
    assert order == sorted(order)
    assert {"--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0", "b", "/nowhere"} <= set(
        lines[order[2]]
    )
    assert lines[-1][2:] == STAGE
