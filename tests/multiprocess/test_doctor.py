"""`w2sr doctor` with two real processes: one table, one exit code, and the process that differs is named."""

import json
from pathlib import Path

import pytest
from spawn import spawn

TIMEOUT_S = 240.0
SMALL = ("--config.all_reduce_mib=(0.01,0.1)", "--config.write_mib=1", "--config.min_free_disk_gib=0.001")

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def doctor(tmp_path, *flags, variables=None):
    argv = ["-m", "w2sr_jax.cli", "doctor", f"--workdir={tmp_path / 'w'}", *SMALL, *flags]
    return spawn(2, argv, tmp_path / "logs", variables=variables).wait(TIMEOUT_S)


def found(tmp_path):
    return {check["name"]: check for check in json.loads((tmp_path / "w/doctor.json").read_text())["checks"]}


def test_two_sound_processes_pass_with_one_table(tmp_path):
    done = doctor(tmp_path, "--config.mesh.fsdp=2", "--config.devices=2")
    assert [one.code for one in done] == [0, 0], done[0].output[-2000:]
    assert done[0].output.count("\npass  devices") == 1
    assert "pass  devices" not in done[1].output
    checks = found(tmp_path)
    assert checks["devices"]["found"] == "2 devices: 1 cpu on each of 2 processes"
    assert checks["shared workdir"]["found"] == "all of 2 processes see it"
    assert checks["clocks"]["found"].startswith("process 1 (")
    assert checks["all-reduce sum"]["found"] == "bfloat16 and float32 are exact over 2 devices"
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["doctor.json"]


def test_a_process_that_differs_is_named_and_all_end_alike(tmp_path):
    variables = {1: {"XLA_FLAGS": "--xla_cpu_enable_fast_min_max=false"}}
    done = doctor(tmp_path, "--config.mesh.fsdp=3", variables=variables)
    assert [one.code for one in done] == [1, 1], done[0].output[-2000:]
    checks = found(tmp_path)
    assert {name for name, check in checks.items() if check["status"] == "fail"} == {"environment", "mesh"}
    assert checks["environment"]["found"].startswith("process 1 (")
    assert "has XLA_FLAGS --xla_cpu_enable_fast_min_max=false, process 0 (" in checks["environment"]["found"]
    assert "FAIL  environment" in done[0].output


def test_a_process_that_sees_another_disk_is_named(tmp_path):
    worker = Path(__file__).with_name("worker.py")
    argv = [str(worker), "--config.what=sees_another_disk", f"--workdir={tmp_path / 'w'}"]
    done = spawn(2, argv, tmp_path / "logs").wait(TIMEOUT_S)
    assert [one.code for one in done] == [1, 1]
    assert done[0].lines[0].startswith("w2sr test: fail: process 1 (")
    assert "do not see what process 0 writes in " in done[0].lines[0]
