"""host.sh on a host: nothing is done twice, what an earlier launch left is ended, w2sr's code comes through."""

import contextlib
import json
import os
import signal
import subprocess

import pytest

from .conftest import AWKWARD


@pytest.fixture
def ready(host):
    """A host with a .venv whose w2sr writes its words down and ends with 75."""
    w2sr = host.root / ".venv/bin/w2sr"
    w2sr.parent.mkdir(parents=True)
    w2sr.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\" >called\nexit 75\n")
    w2sr.chmod(0o755)
    python = w2sr.with_name("python")
    python.write_text("#!/bin/bash\n")
    python.chmod(0o755)
    setup = host.root / "launch/setup.sh"
    setup.write_text('#!/bin/bash\necho "$@" >set-up\n')
    return host


def test_w2sr_gets_every_word_and_its_code_comes_back(ready):
    done = ready.run("host.sh", "--extras=tpu", "sft", "--workdir=/x y", AWKWARD)
    assert done.returncode == 75
    assert (ready.root / "called").read_text().splitlines() == ["sft", "--workdir=/x y", AWKWARD]
    assert (ready.root / "set-up").read_text() == "tpu\n"


def test_sigterm_to_the_launcher_reaches_w2sr(ready):
    """The process that a container or a batch system knows is the launcher's."""
    (ready.root / ".venv/bin/w2sr").write_text(
        "#!/bin/bash\ntrap 'kill $!; exit 75' TERM\nsleep 60 &\ntouch began\nwait\n"
    )
    process = subprocess.Popen([ready.root / "launch/host.sh", "sft"], env=ready.environment, start_new_session=True)
    try:
        while not (ready.root / "began").exists():
            assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=30) == 75
    finally:
        with contextlib.suppress(ProcessLookupError):  # as it should be
            os.killpg(process.pid, signal.SIGKILL)


def test_without_a_stage_it_only_prepares(ready):
    assert ready.run("host.sh", "--extras=cuda").returncode == 0
    assert not (ready.root / "called").exists()


def test_a_set_up_that_fails_runs_nothing(ready):
    (ready.root / "launch/setup.sh").write_text("#!/bin/bash\nexit 1\n")
    assert ready.run("host.sh", "--extras=tpu", "sft").returncode == 1
    assert not (ready.root / "called").exists()


def test_the_bucket_is_mounted_once_without_caches_between_hosts(ready, tmp_path):
    mount = tmp_path / "bucket"
    mount.mkdir()
    ready.fake("gcsfuse", "touch ../mounted")
    ready.fake("mountpoint", "[[ -e ../mounted ]]")
    for _ in range(2):
        assert ready.run("host.sh", "--bucket=b", f"--mount={mount}").returncode == 0
    [call] = ready.calls("gcsfuse")
    assert call[-2:] == ["b", str(mount)]
    assert {"--implicit-dirs", "--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0"} <= set(call)


def test_a_mount_that_fails_runs_nothing(ready, tmp_path):
    (tmp_path / "bucket").mkdir()
    ready.fake("gcsfuse", "exit 7")
    assert ready.run("host.sh", "--bucket=b", f"--mount={tmp_path / 'bucket'}", "sft").returncode == 7
    assert not (ready.root / "called").exists()


def test_a_w2sr_of_an_earlier_launch_is_told_to_stop_and_waited_for(ready):
    (ready.root / ".venv/bin/w2sr").write_text(
        "#!/bin/bash\ntrap 'sleep 1; touch saved; exit 75' TERM\ntouch began\nwhile true; do sleep 0.1; done\n"
    )
    earlier = subprocess.Popen([ready.root / ".venv/bin/w2sr", "sft"], cwd=ready.root)
    try:
        while not (ready.root / "began").exists():
            assert earlier.poll() is None
        # Not waited for at once: host.sh sees the earlier process until this test, its parent, has reaped it.
        stop = subprocess.Popen([ready.root / "launch/host.sh", "--stop"], env=ready.environment)
        assert earlier.wait(timeout=30) == 75
        assert stop.wait(timeout=30) == 0
        assert (ready.root / "saved").exists()
    finally:
        earlier.kill()


def test_the_data_of_the_first_run_is_right(host, tmp_path):
    assert host.run("first_data.sh", str(tmp_path / "data set")).returncode == 0
    problems, traces = (
        [json.loads(line) for line in (tmp_path / "data set" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("problems", "traces")
    )
    from w2sr_jax.core.files import read_jsonl
    from w2sr_jax.core.records import Problem, Trace
    from w2sr_jax.grading.grade import grade

    assert len(read_jsonl(tmp_path / "data set/problems.jsonl", Problem)) == len(problems) == 1024
    assert len(read_jsonl(tmp_path / "data set/traces.jsonl", Trace)) == 1024
    for problem, trace in zip(problems, traces, strict=True):
        assert trace["problem_id"] == problem["id"]
        assert grade(trace["response"], problem["answer"]).correct
