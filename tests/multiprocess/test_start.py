"""Whatever keeps a run from starting ends in one clear line on every host, within its timeout."""

from pathlib import Path

import pytest
import tasks
from spawn import spawn

from w2sr_jax.stages import sft

WORKER = Path(__file__).with_name("worker.py")
TIMEOUT_S = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def lines_of(group, code):
    """The line of each process, which ended with `code` and said nothing else."""
    done = group.wait(TIMEOUT_S)
    for one in done:
        assert one.code == code, one.output[-2000:]
        assert len(one.lines) == 1, one.output
        assert "Traceback" not in one.output
        assert "Check failure" not in one.output
    return [one.lines[0] for one in done]


def sft_argv(inputs, workdir, sizes=(1, 2, 1), **changes):
    config = tasks.sft_config(inputs, sizes, **changes)
    return ["-m", "w2sr_jax.cli", "sft", f"--workdir={workdir}", *tasks.flags_of(config)]


def test_a_host_that_never_arrives(inputs, tmp_path):
    argv = [*sft_argv(inputs, tmp_path / "w"), "--init_timeout_s=6"]
    lines = lines_of(spawn(3, argv, tmp_path / "logs", only=[0, 1]), 1)
    assert lines[0] == lines[1]
    assert lines[0].startswith("w2sr sft: after 6 s 1 of 3 processes have not arrived: process 2 (")
    assert not (tmp_path / "w").exists()


def test_a_host_with_another_jaxlib(tmp_path):
    argv = [str(WORKER), "--config.what=fails_alone", f"--workdir={tmp_path / 'w'}"]
    lines = lines_of(spawn(2, argv, tmp_path / "logs", extra={1: ["--another_jaxlib"]}), 1)
    assert lines[0] == lines[1]
    assert lines[0].startswith("w2sr test: process 1 (")
    assert "runs jaxlib 0.0.1, the others " in lines[0]


def test_a_mesh_that_does_not_match_the_devices(inputs, tmp_path):
    lines = lines_of(spawn(2, sft_argv(inputs, tmp_path / "w", (1, 3, 1)), tmp_path / "logs"), 2)
    expected = "w2sr sft: config.mesh: data=1 x fsdp=3 x tensor=1 does not make 2 devices (cpu)"
    assert lines == [expected] * 2


def test_a_checkpoint_of_another_model(inputs, tmp_path):
    # The checkpoints of a bigger model lie where this one's would.
    other = tasks.make_inputs(tmp_path / "other", hidden_size=32)
    sft.main(tasks.sft_config(other, (1, 1, 1), steps=1), str(tmp_path / "w"))
    lines = lines_of(spawn(2, sft_argv(inputs, tmp_path / "w"), tmp_path / "logs"), 1)
    assert lines[0] == lines[1]
    assert "/checkpoints/1: checkpoint of another model or optimizer: " in lines[0]


def test_hosts_with_different_configs(inputs, tmp_path):
    extra = {1: ["--config.optimizer.learning_rate=0.5"]}
    lines = lines_of(spawn(2, sft_argv(inputs, tmp_path / "w"), tmp_path / "logs", extra=extra), 1)
    assert lines[0] == lines[1]
    assert "process 1 (" in lines[0]
    assert "in its config: optimizer.learning_rate: 0.5, not 0.001" in lines[0]


def test_an_error_of_one_process_ends_the_others_which_wait_for_it(tmp_path):
    argv = [str(WORKER), "--config.what=fails_alone", f"--workdir={tmp_path / 'w'}"]
    lines = lines_of(spawn(3, argv, tmp_path / "logs"), 1)
    assert lines[1] == "w2sr test: a disk that only this host has is full"
    assert lines[0] == lines[2]
    assert lines[0].startswith("w2sr test: a disk that only this host has is full [process 1 (")


def test_a_barrier_says_who_has_not_come(tmp_path):
    argv = [str(WORKER), "--config.what=stays_away", f"--workdir={tmp_path / 'w'}"]
    lines = lines_of(spawn(2, argv, tmp_path / "logs"), 1)
    assert lines[0].startswith(
        "w2sr test: waiting for every process at 'the meeting' failed within 5 s: not there: process 1 ("
    )
    assert lines[1].startswith(lines[0])
