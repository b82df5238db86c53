"""Every way to get a command line wrong ends in one line and the right exit code."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from w2sr_jax import cli
from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.runtime import claim, launch


@dataclasses.dataclass(slots=True, kw_only=True)
class Inner:
    rate: float = opt(0.5, "a rate", minimum=0.0)
    names: tuple[int, ...] = opt((1, 2), "a tuple")


@dataclasses.dataclass(slots=True, kw_only=True)
class Config:
    path: str = opt(help="a path")
    count: int = opt(3, "a count", minimum=1)
    flag: bool = opt(False, "a flag")
    inner: Inner = opt(Inner, "")


SEEN: list[Config] = []


def main(config: Config, workdir: str) -> None:
    if config.path == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if config.path == "fail":
        raise W2SRError("the disk\nis full")
    SEEN.append(config)


def run(*argv: str) -> int:
    return launch("demo", main, Config, list(argv))


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(
        "from test_runtime_config import Config, Inner\n"
        "def get_config(variant=None):\n"
        "    return Config(path=variant or 'p', inner=Inner(rate=0.25))\n"
    )
    sys.modules["test_runtime_config"] = sys.modules[__name__]
    yield str(path)
    del sys.modules["test_runtime_config"]


def test_flags_override_the_defaults_with_their_types(tmp_path):
    argv = [
        "--config.path=x",
        "--config.count=7",
        "--config.inner.rate=1e-3",
        "--config.flag",
        f"--workdir={tmp_path}/w",
    ]
    assert run(*argv) == 0
    assert SEEN[-1] == Config(path="x", count=7, flag=True, inner=Inner(rate=1e-3))
    assert json.loads((tmp_path / "w/config.json").read_text())["inner"]["rate"] == 1e-3


def test_a_config_file_with_a_variant_is_overridden_by_flags_in_any_order(tmp_path, config_file):
    assert run("--config.count=9", f"--config={config_file}:v", f"--workdir={tmp_path}/w") == 0
    assert SEEN[-1] == Config(path="v", count=9, inner=Inner(rate=0.25))


def test_a_tuple_is_overridden_as_a_literal(tmp_path):
    assert run("--config.path=x", "--config.inner.names=(4,5,6)", f"--workdir={tmp_path}/w") == 0
    assert SEEN[-1].inner.names == (4, 5, 6)


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["--config.path=x", "--config.cuont=7"], ["config.cuont", "no such key"]),
        (["--config.path=x", "--config.inner.rat=7"], ["config.inner.rat", "no such key"]),
        (["--config.path=x", "--config.count=seven"], ["config.count", "seven"]),
        (["--config.path=x", "--config.count=0"], ["config.count", "at least 1"]),
        (["--config.path=x", "--wrokdir=3"], ["wrokdir"]),
        (["--config.path=x", "stray"], ["stray"]),
        (["--config.count=1"], ["config.path", "required"]),
        (["--config=nowhere.py"], ["nowhere.py", "no such file"]),
        (["--config=one.py", "--config=two.py:v"], ["--config: one file", "one.py and two.py:v"]),
    ],
)
def test_a_wrong_command_line_is_one_line_with_exit_code_2(tmp_path, capsys, argv, names):
    assert run(*argv, f"--workdir={tmp_path}/w") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert all(name in error for name in names), error


def test_a_missing_workdir_is_named(capsys):
    assert run("--config.path=x") == 2
    assert "--workdir" in capsys.readouterr().err


@pytest.mark.parametrize("workdir", ["gs://bucket/run", "s3://bucket/run"])
def test_a_bucket_is_no_workdir(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--config.path=x", f"--workdir={workdir}") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"w2sr demo: --workdir={workdir}: not a path; mount the bucket (gcsfuse")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_broken_config_file_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("def get_config():\n    return 1/0\n")
    assert run(f"--config={tmp_path}/broken.py", f"--workdir={tmp_path}/w") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "division by zero" in error


def test_a_config_of_another_stage_is_refused(tmp_path, capsys):
    (tmp_path / "other.py").write_text("def get_config():\n    return [1]\n")
    assert run(f"--config={tmp_path}/other.py", f"--workdir={tmp_path}/w") == 2
    assert "takes a Config" in capsys.readouterr().err


def test_a_failure_is_one_line_with_exit_code_1(tmp_path, capsys):
    assert run("--config.path=fail", f"--workdir={tmp_path}/w") == 1
    assert capsys.readouterr().err == "w2sr demo: the disk is full\n"


def test_sigterm_ends_a_stage_without_steps_at_once_with_exit_code_75(tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert run("--config.path=sigterm", f"--workdir={tmp_path}/w") == 75
    assert capsys.readouterr().err == "w2sr demo: stopped by SIGTERM; the same command resumes\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_coordinates_go_together(tmp_path, capsys):
    assert run("--config.path=x", "--coordinator=h:1", "--process_id=0", f"--workdir={tmp_path}/w") == 2
    assert "--num_processes: missing; --coordinator, --num_processes and --process_id go" in capsys.readouterr().err
    assert run("--config.path=x", "--process_id=-1", f"--workdir={tmp_path}/w") == 2


def test_distributed_without_a_cluster_says_what_to_give(tmp_path, capsys, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR"))]:
        monkeypatch.delenv(name)
    assert run("--config.path=x", "--distributed", f"--workdir={tmp_path}/w") == 2
    assert "--distributed: no Cloud TPU, GKE, Slurm or MPI was found; give --coordinator" in capsys.readouterr().err


def test_resuming_under_another_config_is_refused_with_the_keys(tmp_path, capsys):
    assert run("--config.path=x", f"--workdir={tmp_path}/w") == 0
    assert run("--config.path=x", "--config.inner.rate=0.1", f"--workdir={tmp_path}/w") == 2
    assert "inner.rate: 0.5 -> 0.1" in capsys.readouterr().err
    assert run("--config.path=x", f"--workdir={tmp_path}/w") == 0


def test_a_workdir_is_used_by_one_process_at_a_time(tmp_path):
    with (
        claim(tmp_path / "w", Config(path="x")),
        pytest.raises(W2SRError, match="in use by another process"),
        claim(tmp_path / "w", Config(path="x")),
    ):
        pass


def test_what_a_killed_process_had_begun_is_ended(tmp_path):
    work = tmp_path / "w"
    for name in (".export.part", ".export.old", "export", ".gone.old"):
        (work / name).mkdir(parents=True)
        (work / name / "model").write_text(name)
    (work / ".result.json.17.part").write_text("{")
    with claim(work, Config(path="x")):
        pass
    assert {path.name for path in work.iterdir()} == {".lock", "config.json", "export", "gone"}
    assert (work / "export" / "model").read_text() == "export"
    assert (work / "gone" / "model").read_text() == ".gone.old"


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(W2SRError, match="file/w"), claim(tmp_path / "file/w", Config(path="x")):
        pass


def test_help_lists_the_keys_with_their_defaults(capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert "--config.inner.rate=0.5" in out
    assert "a rate" in out


def test_w2sr_help_lists_every_stage_with_a_line(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {stage} " in out for stage in cli.STAGES)


def test_a_misspelt_stage_gets_a_suggestion(capsys):
    assert cli.main(["distil"]) == 2
    assert "did you mean 'distill'" in capsys.readouterr().err


def test_w2sr_alone_prints_the_usage_and_fails():
    done = subprocess.run([sys.executable, "-m", "w2sr_jax.cli"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: w2sr STAGE" in done.stdout


def test_usage_errors_are_w2sr_errors():
    assert issubclass(UsageError, W2SRError)
