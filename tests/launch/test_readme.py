"""Each page of launch/README.md is followed word for word, with stand-ins for the tools of the clouds."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from w2sr_jax.core import config
from w2sr_jax.core.command_line import parse
from w2sr_jax.core.stage_config import ExperimentConfig, SFTConfig
from w2sr_jax.micro.config import SizeConfig
from w2sr_jax.micro.pretrain import new_model
from w2sr_jax.micro.tokenizer import save_tokenizer
from w2sr_jax.model import hf

from .conftest import ROOT

README = (ROOT / "launch/README.md").read_text()
FIRST = "Before the first run"
# What gcloud answers when it is asked for a value.
VALUES = 'case "$*" in *get-value*) echo my-project ;; *projectNumber*) echo 123 ;; esac'

# A pod of two workers, each a home directory here. `scp` and `ssh` do on every worker what they are told; the code is
# that of the first worker that did not end with 0. The bucket is a directory; the other commands only keep a state.
POD = """
here=$PWD
cd {state}
workers=("$PWD/worker-0" "$PWD/worker-1")
case "$*" in
  *"storage cp"*) mkdir -p bucket && cp -r "$here/$4" bucket ;;
  *"storage cat"*) cat "bucket/${{3#gs://*/}}" ;;
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

# The worker's w2sr is the real one, with a small model for the hub's and a directory for the mount. The first start of
# worker 1 gets SIGTERM in the midst of training.
W2SR = """#!/bin/bash
cd {state}
words=("${{@//\\/mnt\\/w2sr/$PWD/bucket}}")
words=("${{words[@]//Qwen\\/Qwen2.5-0.5B-Instruct/$PWD/model}}")
[[ $1 != doctor ]] || exec {python} -m w2sr_jax.cli "${{words[@]}}"
echo "start" >>"starts-$SLURM_PROCID"
if ((SLURM_PROCID == 1)) && [[ $(wc -l <starts-1) == 1 ]]; then
  (until [[ -e bucket/runs/first/metrics.jsonl ]]; do /bin/sleep 0.1; done; kill -TERM $$) &
fi
exec {python} -m w2sr_jax.cli "${{words[@]}}" --config.train.dtype=float32 --config.train.remat=none
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
        timeout=500,
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
@pytest.mark.processes
def test_the_pod_page_trains_on_two_workers_and_resumes_after_a_preemption(tools, tmp_path):
    """From the first line of the page to the last one, over a model of a few thousand parameters."""
    state = tmp_path / "pod state"
    save_tokenizer(state / "tokenizer", 512)
    size = SizeConfig(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=1)
    hf.save(new_model(size, 0), state / "model", "float32", tokenizer_from=state / "tokenizer")
    for index in range(2):
        venv = state / f"worker-{index}" / "w2sr_jax/.venv"
        (venv / "bin").mkdir(parents=True)
        program = W2SR.format(state=shlex.quote(str(state)), python=sys.executable)
        # The packages are there: setup.sh finds a Python, and uv has nothing to do.
        for name, script in (("w2sr", program), ("python", "#!/bin/bash\n"), ("uv", "#!/bin/bash\n")):
            (venv / "bin" / name).write_text(script)
            (venv / "bin" / name).chmod(0o755)
    tools.fake("mountpoint")  # stands for the mounted bucket
    tools.fake("gcloud", VALUES + POD.format(state=shlex.quote(str(state)), job=os.getpid()))
    tools.environment["PYTHONPATH"] = str(Path(config.__file__).parents[2])
    done = follow(tools, blocks(FIRST, "Cloud TPU"))
    logs = [(state / f"worker-{index}/log").read_text() for index in range(2)]
    assert done.returncode == 0, (done.stderr, logs)
    assert "preempted (exit code 75)" in done.stderr
    assert not (state / "tpu").exists()  # the page ends with its deletion
    assert [(state / f"starts-{index}").read_text().count("start") for index in range(2)] == [2, 2], logs
    steps = re.findall(r'"step": (\d+).*"loss"', done.stdout)  # the page shows metrics.jsonl
    assert [int(step) for step in steps] == list(range(20))
    assert (state / "bucket/runs/first/export/config.json").exists()
    told = json.loads((state / "bucket/runs/first/doctor.json").read_text())
    assert (told["processes"], told["failed"]) == (2, False)


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
        script = re.sub(r'^launch/tpu_pod.sh .*("\$\{first\[@\]\}"| doctor .*)$', "", script, flags=re.MULTILINE)
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


def flags_of(launcher):
    """Those that its help names, which are those that it takes; every launcher has --help."""
    said = subprocess.run([ROOT / launcher, "--help"], capture_output=True, text=True, check=True).stdout
    return {"--help", *re.findall(r"--[\w-]+", said)}


def flags_in(words):
    """The flags that come first among these words."""
    return [word.split("=", 1)[0] for word in itertools.takewhile(lambda word: word.startswith("--"), words)]


def test_every_launcher_and_flag_of_the_readme_exists():
    """Also those outside of the pages' commands."""
    named = set(re.findall(r"launch/[\w/]+\.(?:sh|yaml)", README))
    assert {f"launch/{path}" for path in ("tpu_pod.sh", "gke/jobset.sh", "gke/xpk.sh", "slurm.sh")} <= named
    for name in named:
        assert (ROOT / name).is_file(), name
    flags = {name: flags_of(name) for name in named if name.endswith(".sh") and name != "launch/first_data.sh"}
    for line in README.replace("\\\n", " ").splitlines():
        if (words := line.split()) and words[0] in flags:
            first = 2 if words[1] == "delete" else 1
            assert set(flags_in(words[first:])) <= flags[words[0]], line
    w2sr = {"--distributed", "--workdir"}
    mentioned = set()
    for page in re.split(r"^## ", README, flags=re.MULTILINE):
        known = set().union(w2sr, *(flags[name] for name in flags if name in page))
        prose = re.sub(r"```bash\n.*?```", "", page, flags=re.DOTALL)
        for words in map(str.split, re.findall(r"`(--[^`]+)`", prose)):
            found = {flag for flag in flags_in(words) if not flag.startswith("--config.")}
            assert found <= known, (page.splitlines()[0], words)
            mentioned |= found
    assert {"--max-failures", "--max-restarts", "--ref", "--gpu", "--hosts"} <= mentioned


def test_the_stage_of_the_readme_has_only_keys_that_w2sr_knows():
    script = blocks(FIRST)
    first = shlex.split(script[script.index("first=(") + len("first=(") :].split("\n)")[0].rstrip().removesuffix(")"))
    known = config.flatten(config.to_dict(SFTConfig()))
    keys = [word.split("=", 1)[0].removeprefix("--config.") for word in first if word.startswith("--config.")]
    assert "steps" in keys
    assert set(keys) <= set(known)


def test_the_experiment_of_the_readme_goes_to_every_worker_with_keys_that_w2sr_knows(tools):
    done = follow(tools, blocks(FIRST, "A whole experiment"))
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if " --workdir=/mnt/w2sr/runs/7b" in line]
    words = shlex.split(line)
    while "run" not in words:
        [words] = [shlex.split(word.split("=", 1)[1]) for word in words if "run " in word]
    line = parse(words[words.index("run") + 1 :], ExperimentConfig)
    assert line.distributed
    assert line.config.benchmarks == ("/mnt/w2sr/benchmarks/gsm8k.jsonl", "/mnt/w2sr/benchmarks/math500.jsonl")
    assert len(line.config.nodes()) > 10
