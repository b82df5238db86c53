"""Four real processes, SIGKILL in one or SIGTERM in all at random steps: the same command ends as an unbroken run.

W2SR_KILLS sets how often; CI takes the default.
"""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tasks
from spawn import Group, spawn

from w2sr_jax.core.config import CheckpointConfig
from w2sr_jax.core.metrics import read_metrics

KILLS = int(os.environ.get("W2SR_KILLS", "2"))
STEPS_A_KILL, COUNT, SIZES = 20, 4, (1, 2, 2)
TIMEOUT_S = 300.0  # of one start; a machine with other work is slow

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(300 + 120 * KILLS)]


def start(inputs: Path, workdir: Path, steps: int, logs: Path) -> Group:
    config = tasks.sft_config(inputs, SIZES, steps=steps, checkpoint=CheckpointConfig(every_steps=7, keep_last=2))
    argv = ["-m", "w2sr_jax.cli", "sft", f"--workdir={workdir}", *tasks.flags_of(config)]
    return spawn(COUNT, argv, logs)


def last_step(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") - 1 if path.exists() else -1


def rows(workdir: Path) -> list[tuple[float, ...]]:
    names = ("step", "loss", "grad_norm", "tokens", "learning_rate")
    return [tuple(row[name] for name in names) for row in read_metrics(workdir)]


def test_kills_and_preemptions_change_nothing(inputs, tmp_path):
    steps, rng = STEPS_A_KILL * (KILLS + 1), random.Random(7)
    for done in start(inputs, tmp_path / "whole", steps, tmp_path / "logs").wait(TIMEOUT_S):
        assert done.code == 0, done.output[-2000:]

    for number in range(KILLS):
        at = STEPS_A_KILL * number + rng.randint(5, STEPS_A_KILL)
        group = start(inputs, tmp_path / "broken", steps, tmp_path / f"logs{number}")
        deadline = time.monotonic() + TIMEOUT_S
        while last_step(tmp_path / "broken") < at:
            ended = [p.poll() for p in group.processes]
            if any(code is not None for code in ended) or time.monotonic() > deadline:
                group.kill()
                pytest.fail(f"ended with {ended} before step {at}: " + group.logs[0].read_text()[-2000:])
            time.sleep(0.05)
        if number % 2 == 0:  # a machine dies; which one also takes its turn
            victim = rng.randrange(COUNT)
            group.send(victim, signal.SIGKILL)
            codes = [done.code for done in group.wait(TIMEOUT_S)]
            assert codes.pop(victim) == -signal.SIGKILL
            assert 0 not in codes
        else:  # the machines are taken away
            for process in rng.sample(range(COUNT), COUNT):
                group.send(process, signal.SIGTERM)
            for done in group.wait(TIMEOUT_S):
                assert done.code == 75, done.output[-2000:]
                assert done.lines == ["w2sr sft: stopped by SIGTERM; the same command resumes"]
            saved = max(int(path.name) for path in (tmp_path / "broken/checkpoints").iterdir() if path.name.isdigit())
            assert saved == last_step(tmp_path / "broken") + 1, "nothing that was done is done again"
    for done in start(inputs, tmp_path / "broken", steps, tmp_path / "last").wait(TIMEOUT_S):
        assert done.code == 0, done.output[-2000:]

    assert len(rows(tmp_path / "whole")) == steps
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole"), "to the last bit"
    one, other = ((tmp_path / name / "export/model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert one == other


def test_a_checkpoint_that_one_of_two_processes_cannot_read_is_left_by_both(inputs, tmp_path):
    config = tasks.sft_config(inputs, (1, 2, 1), steps=8, checkpoint=CheckpointConfig(every_steps=4, keep_last=2))
    argv = ["-m", "w2sr_jax.cli", "sft", f"--workdir={tmp_path / 'w'}", *tasks.flags_of(config)]
    for done in spawn(2, argv, tmp_path / "logs").wait(TIMEOUT_S):
        assert done.code == 0, done.output[-2000:]
    whole = rows(tmp_path / "w")
    own = [path for path in (tmp_path / "w/checkpoints/8/state/ocdbt.process_1").rglob("*") if path.is_file()]
    assert own
    for path in own:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    first, second = spawn(2, argv, tmp_path / "logs2").wait(TIMEOUT_S)
    assert (first.code, second.code) == (0, 0), first.output[-2000:] + second.output[-2000:]
    assert "falling back from checkpoint 8 to 4" in first.output
    assert (tmp_path / "w/checkpoints/8.unreadable").exists()
    assert rows(tmp_path / "w") == whole


def test_the_batches_of_such_a_run_hold_every_row_once_an_epoch(inputs):
    pipeline = tasks.next_batches(tasks.sft_config(inputs, (1, 1, 1)), None)
    stream = np.concatenate([next(pipeline).tokens_BT for _ in range(pipeline.num_rows)])
    for epoch in range(len(stream) // pipeline.num_rows):
        here = stream[epoch * pipeline.num_rows : (epoch + 1) * pipeline.num_rows]
        assert len({row.tobytes() for row in here}) == pipeline.num_rows
    assert pipeline.num_examples == 40
