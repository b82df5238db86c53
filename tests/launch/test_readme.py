"""Each page of launch/README.md is followed word for word, with stand-ins for the tools of the clouds."""

import re
import shlex
import subprocess
import sys

import pytest

from .conftest import ROOT

README = (ROOT / "launch/README.md").read_text()
FIRST = "Before the first run"
# What gcloud answers when it is asked for a value.
VALUES = 'case "$*" in *get-value*) echo my-project ;; *projectNumber*) echo 123 ;; esac'

# A pod of two workers, each a home directory here. `scp` and `ssh` do on every worker what they are told; the code is
# that of the first worker that did not end with 0. The other commands only keep a state.
POD = """
cd {state}
workers=("$PWD/worker-0" "$PWD/worker-1")
case "$*" in
  *"queued-resources list"*) [[ ! -e tpu ]] || printf 'w2sr\\tACTIVE\\n' ;;
  *"queued-resources create"*) touch tpu ;;
  *"queued-resources delete"*) rm tpu ;;
  *" scp "*) for home in "${{workers[@]}}"; do cp "$5" "$home"; done ;;
  *" ssh "*)
    command=${{*: -1}} pids=() code=0
    for home in "${{workers[@]}}"; do
      # What Cloud TPU tells JAX through its metadata server, Slurm tells it through the environment.
      (cd "$home" && HOME=$home SLURM_JOB_ID={job} SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_LOCALID=0 \\
        SLURM_PROCID=${{home##*-}} bash -c "${{command#--command=}}" >>log 2>&1) &
      pids+=($!)
    done
    for pid in "${{pids[@]}}"; do
      wait "$pid" || {{ last=$?; ((code)) || code=$last; }}
    done
    exit "$code" ;;
esac
"""

# In place of w2sr: forms the cluster as `w2sr --distributed` does. The first try is preempted.
PROGRAM = f"""#!{sys.executable}
import pathlib, sys
import jax, jax.numpy as jnp
jax.distributed.initialize()
total = jax.pmap(lambda x: jax.lax.psum(x, "all"), axis_name="all")(jnp.full(jax.local_device_count(), 1.0))
print(jax.process_index(), "of", jax.process_count(), "sum", float(total[0]), *sys.argv[1:], flush=True)
tries = pathlib.Path("tries")
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
jax.distributed.shutdown()
sys.exit(75 if tries.read_text() == "x" else 0)
"""


def blocks(*titles):
    """The shell commands of these sections, as one script."""
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL))
    return "\n".join(code for title in titles for code in re.findall(r"```bash\n(.*?)```", sections[title], re.DOTALL))


def follow(host, script):
    """Types the commands into a shell whose home is empty, at the top of the repository."""
    environment = host.environment | {"HOME": str(host.root.parent), "USER": "me"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=host.root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def tools(host):
    """Tools that answer and do nothing."""
    host.fake("gcloud", VALUES)
    for tool in ("kubectl", "xpk", "sky", "sbatch", "pip", "ssh-agent", "ssh-add", "ssh-keygen", "sleep"):
        host.fake(tool)
    return host


def stage_of(call):
    """The stage's command in a call, wherever it stands: as words, or quoted for another shell."""
    words = call
    while "sft" not in words:
        [words] = [shlex.split(word.split("=", 1)[1]) for word in words if "sft " in word]
    return words[words.index("sft") :]


@pytest.mark.slow
def test_the_pod_page_reaches_the_run_and_resumes_after_a_preemption(tools, tmp_path):
    state = tmp_path / "pod state"
    for index in range(2):
        venv = state / f"worker-{index}" / "w2sr_jax/.venv"
        (venv / "bin").mkdir(parents=True)
        (venv / ".setup-tpu").touch()  # stands for the installed packages
        for name in ("w2sr", "python"):
            (venv / "bin" / name).write_text(PROGRAM)
            (venv / "bin" / name).chmod(0o755)
    tools.fake("mountpoint")  # stands for the mounted bucket
    tools.fake("gcloud", VALUES + POD.format(state=shlex.quote(str(state)), job=hash(str(tmp_path)) % 4096))
    done = follow(tools, blocks(FIRST, "Cloud TPU"))
    assert done.returncode == 0, done.stderr
    assert not (state / "tpu").exists()  # the page ends with its deletion
    for index in range(2):
        log = (state / f"worker-{index}/log").read_text()
        said = [line for line in log.splitlines() if " sum " in line]
        assert len(said) == 2, log  # preempted once
        for line in said:
            assert line.startswith(f"{index} of 2 sum 2.0 sft --distributed --config.model=")
            assert line.endswith("--workdir=/mnt/w2sr/runs/first")
    assert "preempted (exit code 75)" in done.stderr


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ((FIRST, "Cloud TPU"), ("gcloud", "storage", "cp")),
        ((FIRST, "GKE"), ("kubectl", "apply", "--filename=-")),
        ((FIRST, "xpk"), ("xpk", "workload", "create")),
        ((FIRST, "SkyPilot"), ("sky", "jobs", "launch")),
        (("Slurm",), ("sbatch",)),
    ],
)
def test_a_page_can_be_followed_word_for_word(tools, pages, words):
    script = blocks(*pages)
    if "Cloud TPU" in pages:  # its run is the test above
        script = re.sub(r'^launch/tpu_pod.sh .*"\$\{first\[@\]\}"$', "", script, flags=re.MULTILINE)
    done = follow(tools, script)
    assert done.returncode == 0, done.stderr
    assert tools.calls(*words)


@pytest.mark.parametrize(
    ("page", "words"), [("xpk", ("xpk", "workload", "create")), ("SkyPilot", ("sky", "jobs", "launch"))]
)
def test_the_stage_of_the_page_arrives_whole(tools, page, words):
    follow(tools, blocks(FIRST, page))
    stage = stage_of(tools.calls(*words)[0])
    assert "--config.steps=20" in stage
    assert stage[-1] == "--workdir=/mnt/w2sr/runs/first"


def test_every_launcher_and_flag_of_the_readme_exists(tools):
    """Also those outside of the pages' commands."""
    named = set(re.findall(r"launch/[\w/]+\.(?:sh|yaml)", README))
    assert {f"launch/{path}" for path in ("tpu_pod.sh", "gke/jobset.sh", "gke/xpk.sh", "slurm.sh")} <= named
    for name in named:
        assert (ROOT / name).is_file(), name


def test_the_stage_of_the_readme_has_only_keys_that_w2sr_knows():
    from w2sr_jax.core.runtime import parse
    from w2sr_jax.core.stage_config import SFTConfig

    script = blocks(FIRST)
    first = shlex.split(script[script.index("first=(") + len("first=(") :].split("\n)")[0].rstrip().removesuffix(")"))
    config, workdir = parse(first[1:], SFTConfig)
    assert config.steps == 20
    assert str(workdir) == "/mnt/w2sr/runs/first"
