"""`w2sr doctor` on eight fake devices: the table, doctor.json, the exit code, and workdirs that runs hold."""

import json

from w2sr_jax import cli
from w2sr_jax.core.runtime import claim
from w2sr_jax.core.tool_config import DoctorConfig
from w2sr_jax.core.trace_config import FilterConfig
from w2sr_jax.stages import doctor

SMALL = ("--config.all_reduce_mib=(0.01,0.1)", "--config.write_mib=1", "--config.min_free_disk_gib=0.001")
NAMES = [
    *("versions", "environment", "devices", "mesh", "all-reduce sum", "all-reduce rate", "clocks", "shared workdir"),
    *("workdir", "hf cache", "host memory", "open files", "shared memory", "vllm", "matmul"),
]


def run(workdir, *flags):
    return cli.main(["doctor", f"--workdir={workdir}", *SMALL, *flags])


def test_a_sound_machine_passes_with_a_table_and_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert run(tmp_path / "w", "--config.mesh.data=2", "--config.mesh.fsdp=-1", "--config.devices=8") == 0
    told = json.loads((tmp_path / "w/doctor.json").read_text())
    assert not told["failed"]
    assert [check["name"] for check in told["checks"]] == NAMES
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("pass  ", "WARN  ")) for line in lines) == len(NAMES)
    assert lines[-1].endswith(" 0 failed")


def test_what_fails_has_a_remedy_and_the_exit_code_1(tmp_path, capsys):
    flags = ("--config.devices=16", "--config.mesh.data=3", "--config.min_free_memory_gib=1e6", "--config.model=/none")
    assert run(tmp_path, *flags) == 1
    failed = {
        check["name"]: check["remedy"]
        for check in json.loads((tmp_path / "doctor.json").read_text())["checks"]
        if check["status"] == "fail"
    }
    assert failed.keys() == {"devices", "mesh", "host memory", "model"}
    assert all(failed.values())
    out = capsys.readouterr().out
    assert "FAIL  devices" in out
    assert "-> the product of --config.mesh.* must be 8" in out
    assert out.splitlines()[-1].endswith(" 4 failed")


def test_a_workdir_that_cannot_be_written_is_in_the_table(capsys):
    assert run("/proc/w2sr") == 1
    out = capsys.readouterr().out
    assert "FAIL  workdir" in out
    assert "FAIL  shared workdir" in out


def test_a_workdir_is_looked_at_while_a_run_holds_it_and_is_left_to_it(tmp_path):
    with claim(tmp_path, FilterConfig(problems="p", traces="t")):
        before = (tmp_path / "config.json").read_text()
        assert run(tmp_path) == 0
        assert (tmp_path / "config.json").read_text() == before
    assert run(tmp_path / "new") == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["doctor.json"]


def test_a_bucket_and_a_size_that_are_none(tmp_path, capsys):
    assert run(tmp_path, "--config.bucket=gs://a-bucket/w2sr") == 1
    assert "FAIL  bucket" in capsys.readouterr().out
    assert run(tmp_path, "--config.all_reduce_mib=(0.0,)") == 2
    assert "config.all_reduce_mib: expected sizes above 0" in capsys.readouterr().err


def test_help_says_what_is_checked(capsys):
    assert cli.main(["doctor", "--help"]) == 0
    assert "--config.max_clock_skew_s" in capsys.readouterr().out
    assert doctor.CONFIG is DoctorConfig
