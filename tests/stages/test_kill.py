"""SIGKILL at random moments of a whole experiment: the same command, run again, ends where an unbroken run ends.

Both runs are real processes and share a compilation cache (tests/conftest.py): programs that are read from it compute
the same bits, and most of the time of so small an experiment is compilation.
"""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from spawn import ROOT, one_device

from w2sr_jax.core.files import read_json, read_jsonl
from w2sr_jax.core.records import Prediction, Trace

SEED, KILLS = 5, 5
NODE = re.compile(r"^\S+ \[(\d+)/26\]", re.MULTILINE)  # what `run` logs as a node begins
COMPARED = ("traces.jsonl", "predictions.jsonl", "all.jsonl", "correct.jsonl", "model.safetensors")


def start(workdir: Path, log: Path) -> subprocess.Popen:
    command = [
        *(sys.executable, "-m", "w2sr_jax.cli", "run"),
        *(f"--config={ROOT / 'configs/experiments/micro.py'}:tiny", f"--workdir={workdir}"),
    ]
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=one_device(), cwd=ROOT)


def finish(process: subprocess.Popen, log: Path) -> None:
    assert process.wait() == 0, log.read_text()[-2000:]


def kill_in_node(process: subprocess.Popen, log: Path, node: int, delay: float) -> None:
    """SIGKILL `delay` seconds after the process began that node of the experiment, or a later one."""
    seen = log.stat().st_size
    while not any(int(number) >= node for number in NODE.findall(log.read_text()[seen:])):
        assert process.poll() is None, log.read_text()[-2000:]
        time.sleep(0.02)
    time.sleep(delay)
    assert process.poll() is None, f"the process ended before it could be killed in node {node}"
    process.send_signal(signal.SIGKILL)
    process.wait()


def outputs(workdir: Path) -> dict[str, bytes]:
    paths = (path for name in COMPARED for path in workdir.rglob(name) if "checkpoints" not in path.parts)
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_kills_at_random_moments_change_nothing(tmp_path):
    whole, broken, log = (tmp_path / name for name in ("whole", "broken", "broken.log"))
    finish(start(whole, tmp_path / "whole.log"), tmp_path / "whole.log")

    # Long stages first (pretraining, GRPO, SFT); the last kill hits evaluation or the report, which end within seconds.
    rng = random.Random(SEED)
    moments = [(node, rng.uniform(0.0, 1.5)) for node in sorted(rng.sample(range(1, 16), KILLS - 1))]
    for node, delay in [*moments, (rng.randint(16, 26), rng.uniform(0.0, 0.2))]:
        kill_in_node(start(broken, log), log, node, delay)
    finish(start(broken, log), log)

    expected, found = outputs(whole), outputs(broken)
    assert len(expected) > 20
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    one, other = (read_json(root / "seed0" / "report" / "report.json") for root in (whole, broken))
    assert (other["arms"], other["rgr"]) == (one["arms"], one["rgr"])

    for path in broken.rglob("*.jsonl"):
        assert all(json.loads(line) is not None for line in path.read_text().splitlines()), path
    for name, kind in (("traces.jsonl", Trace), ("predictions.jsonl", Prediction)):
        for path in broken.rglob(name):
            keys = [(record.problem_id, record.sample) for record in read_jsonl(path, kind)]
            assert len(keys) == len(set(keys)), path
    leftovers = [path for path in broken.rglob("*") if path.name.endswith((".part", ".old", ".unreadable"))]
    assert leftovers == []
    assert not list(broken.rglob("responses.jsonl"))
