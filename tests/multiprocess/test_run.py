"""`w2sr run` in several processes: the result of one process, reuse, kills, SIGTERM, and stages that are for one."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from experiment import STEPS
from safetensors.numpy import load_file
from spawn import ROOT, spawn

from w2sr_jax.core.files import read_json, read_jsonl
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.records import GradedTrace, Trace, TraceScore

TIMEOUT_S = 400.0  # of one start; a machine with other work is slow
NODES = 11
WORKER = Path(__file__).with_name("worker.py")

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def start(inputs):
    """start(processes, workdir, logs) -> a group that runs the experiment."""

    def begin(count, workdir, logs):
        config = f"--config={Path(__file__).with_name('experiment.py')}"
        argv = ["-m", "w2sr_jax.cli", "run", config, f"--config.inputs={inputs}", f"--workdir={workdir}"]
        return spawn(count, argv, logs)

    return begin


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The workdir of two processes that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    for done in start(2, root / "w", root / "logs").wait(TIMEOUT_S):
        assert done.code == 0, done.output[-3000:]
    return root / "w"


def predictions(workdir, arm):
    return (workdir / f"eval/{arm}/predictions.jsonl").read_bytes()


def until(group, reached):
    """Waits while the processes run."""
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        ended = [process.poll() for process in group.processes]
        if any(code is not None for code in ended) or time.monotonic() > deadline:
            group.kill()
            pytest.fail(f"ended with {ended}: " + group.logs[0].read_text()[-3000:])
        time.sleep(0.01)


def test_two_processes_give_the_results_of_one(whole, start, tmp_path):
    (done,) = start(1, tmp_path / "w", tmp_path / "logs").wait(TIMEOUT_S)
    assert done.code == 0, done.output[-3000:]
    one = tmp_path / "w"
    for node in ("teacher", "student"):
        losses = [[row["loss"] for row in read_metrics(place / node)] for place in (one, whole)]
        assert len(losses[0]) == STEPS
        np.testing.assert_allclose(*losses, rtol=1e-3)
        weights = [load_file(place / node / "export/model.safetensors") for place in (one, whole)]
        for name, value in weights[0].items():
            np.testing.assert_allclose(weights[1][name], value, rtol=1e-2, atol=1e-3, err_msg=name)
    assert len(read_jsonl(one / "traces/traces.jsonl", Trace)) == 40
    assert len(read_jsonl(one / "filter/all.jsonl", GradedTrace)) == 40
    for name in ("traces/traces.jsonl", "filter/all.jsonl", "select/traces.jsonl"):
        assert (one / name).read_bytes() == (whole / name).read_bytes(), name
    for arm in ("base", "w2sr", "grpo"):
        assert predictions(one, arm) == predictions(whole, arm)
    scores = [read_jsonl(place / "score/scores.jsonl", TraceScore) for place in (one, whole)]
    np.testing.assert_allclose(*([score.surprisal for score in of] for of in scores), rtol=1e-5)
    labs = [read_json(place / "lab/report.json")["trace_lab"]["sets"]["select"] for place in (one, whole)]
    assert labs[0]["surprisal"]["mean"] == pytest.approx(labs[1]["surprisal"]["mean"], rel=1e-5)
    arms = [read_json(place / "report/report.json")["arms"] for place in (one, whole)]
    assert arms[0] == arms[1]


def test_a_second_start_reuses_every_stage(whole, start, tmp_path):
    marks = {path: path.stat().st_mtime_ns for path in whole.rglob("done.json")}
    assert len(marks) == NODES
    first, second = start(2, whole, tmp_path / "logs").wait(TIMEOUT_S)
    assert (first.code, second.code) == (0, 0), first.output[-2000:] + second.output[-2000:]
    assert f"{NODES} stages, {NODES} of them reused" in first.output
    assert "The page with plots" in first.output
    assert "The page with plots" not in second.output
    assert marks == {path: path.stat().st_mtime_ns for path in whole.rglob("done.json")}


def test_a_notice_and_a_kill_in_the_middle_change_nothing(whole, start, tmp_path):
    group = start(2, tmp_path / "w", tmp_path / "logs0")
    until(group, lambda: len(read_metrics(tmp_path / "w/teacher")) > 10)
    group.send(1, signal.SIGTERM)  # one machine is taken away
    for done in group.wait(TIMEOUT_S):
        assert done.code == 75, done.output[-3000:]
        assert done.lines[-1].startswith("w2sr run: stopped by SIGTERM; the same command resumes")
    assert not (tmp_path / "w/student").exists()

    group = start(2, tmp_path / "w", tmp_path / "logs1")
    until(group, lambda: len(read_metrics(tmp_path / "w/student")) > 10)
    group.send(1, signal.SIGKILL)
    codes = [done.code for done in group.wait(TIMEOUT_S)]
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, 75)

    for done in start(2, tmp_path / "w", tmp_path / "logs2").wait(TIMEOUT_S):
        assert done.code == 0, done.output[-3000:]
    assert not list((tmp_path / "w").glob("*.old-*")), "nothing was done a second time"
    for name in ("teacher/export/model.safetensors", "student/export/model.safetensors", "traces/traces.jsonl"):
        assert (tmp_path / "w" / name).read_bytes() == (whole / name).read_bytes(), name
    for arm in ("base", "w2sr", "grpo"):
        assert predictions(tmp_path / "w", arm) == predictions(whole, arm)


def test_a_stage_for_one_process_is_refused_by_its_nodes_name_before_any_stage_runs(tmp_path):
    config = f"--config={ROOT / 'configs/experiments/micro.py'}:tiny"
    group = spawn(2, ["-m", "w2sr_jax.cli", "run", config, f"--workdir={tmp_path / 'w'}"], tmp_path / "logs")
    for done in group.wait(TIMEOUT_S):
        assert done.code == 2, done.output[-2000:]
        assert len(done.lines) == 1, done.output
        assert done.lines[0].startswith("w2sr run: experiment: node seed0/")
        assert ": micro runs in one process; start the same command without --distributed" in done.lines[0]
    assert [path.name for path in (tmp_path / "w").iterdir() if path.is_dir()] == []


def test_a_notice_reaches_a_process_that_waits_for_the_first_one(tmp_path):
    argv = [str(WORKER), "--config.what=first_works_long", f"--workdir={tmp_path / 'w'}"]
    group = spawn(2, argv, tmp_path / "logs")
    until(group, lambda: (tmp_path / "w/waiting").exists())
    time.sleep(1.0)
    group.send(1, signal.SIGTERM)
    for done in group.wait(30.0):
        assert done.code == 75, done.output[-2000:]
