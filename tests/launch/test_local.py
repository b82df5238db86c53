"""local.sh starts processes that find each other, ends all when one fails, and starts all again on exit code 75."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PSUM = f"""#!{sys.executable}
import sys, jax
flags = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
count, index = int(flags["--num_processes"]), int(flags["--process_id"])
jax.distributed.initialize(flags["--coordinator"], count, index)
import jax.numpy as jnp
total = jax.pmap(lambda x: jax.lax.psum(x, "all"), axis_name="all")(jnp.full(jax.local_device_count(), index + 1.0))
print(sys.argv[1], sys.argv[2], jax.device_count(), float(total[0]), flush=True)
"""

# Shell programs for the rule: $index is the process, $attempt counts its starts.
PROGRAM = """#!/bin/bash
for word in "$@"; do case $word in --process_id=*) index=${word#*=} ;; --workdir=*) workdir=${word#*=} ;; esac; done
echo >>"$workdir/starts-$index"
attempt=$(wc -l <"$workdir/starts-$index")
echo "$$" >"$workdir/pid-$index"
"""


@pytest.fixture
def pod(host, tmp_path):
    """local.sh with a program in place of w2sr; returns the finished process, or with wait=False the running one."""
    workdir = tmp_path / "work dir"
    workdir.mkdir()

    def run(program, *flags, wait=True):
        path = tmp_path / "program"
        path.write_text(program)
        path.chmod(0o755)
        command = [
            host.root / "launch/local.sh",
            f"--program={path}",
            "--backoff=0",
            *flags,
            "sft",
            f"--workdir={workdir}",
        ]
        process = subprocess.Popen(
            [str(word) for word in command], env=host.environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        if not wait:
            return process
        _, process.said = process.communicate(timeout=150)
        return process

    run.workdir = workdir
    return run


def starts(pod, index):
    return len((pod.workdir / f"starts-{index}").read_text().splitlines())


def running(pod, index):
    return Path(f"/proc/{int((pod.workdir / f'pid-{index}').read_text())}").exists()


def test_two_processes_with_two_devices_each_sum_over_loopback(pod):
    done = pod(PSUM, "--processes=2", "--devices=2")
    logs = [(pod.workdir / f"logs/process-{i}.log").read_text() for i in range(2)]
    assert done.returncode == 0, (done.said, logs)
    for log in logs:
        assert "sft --distributed 4 6.0" in log


def test_exit_code_75_of_one_starts_all_again(pod):
    done = pod(PROGRAM + "((index == 1 && attempt < 3)) && exit 75; exit 0")
    assert done.returncode == 0
    assert starts(pod, 0) == starts(pod, 1) == 3


def test_the_others_may_finish_their_checkpoint_after_a_75(pod):
    done = pod(PROGRAM + '((attempt > 1)) && exit 0; ((index)) && exit 75; sleep 1; touch "$workdir/saved"; exit 75')
    assert done.returncode == 0
    assert (pod.workdir / "saved").exists()
    assert starts(pod, 0) == starts(pod, 1) == 2


def test_a_crash_that_follows_a_75_counts_as_preemption(pod):
    done = pod(PROGRAM + "((attempt > 1)) && exit 0; ((index)) && exit 75; sleep 1; exit 134")
    assert done.returncode == 0
    assert starts(pod, 0) == 2


def test_one_failure_ends_all_and_its_log_is_shown(pod):
    began = time.monotonic()
    done = pod(PROGRAM + "((index == 1)) && { echo the reason; exit 3; }; exec sleep 100", "--processes=3")
    assert time.monotonic() - began < 30
    assert done.returncode == 3
    assert "process 1: exit code 3" in done.said
    assert "the reason" in done.said
    assert not running(pod, 0)
    assert not running(pod, 2)
    assert starts(pod, 0) == 1


def test_errors_are_tried_again_only_so_often(pod):
    done = pod(PROGRAM + "exit 1", "--max-failures=2")
    assert done.returncode == 1
    assert starts(pod, 0) == 3


def test_a_process_that_hangs_after_a_75_is_killed_and_all_start_again(pod):
    done = pod(PROGRAM + "((attempt > 1)) && exit 0; ((index)) && exit 75; exec sleep 100", "--grace=1")
    assert done.returncode == 0
    assert "killing" in done.said
    assert starts(pod, 1) == 2


def test_a_sigterm_that_comes_before_the_processes_reaches_them(pod, host):
    host.fake("mkdir", 'kill -TERM "$PPID"; exec /bin/mkdir "$@"')  # local.sh makes the logs' directory first
    done = pod(PROGRAM + "trap 'kill $!; exit 75' TERM; sleep 5 & wait")
    assert done.returncode in (75, 128 + signal.SIGTERM)  # or told before it could listen


def test_sigterm_reaches_every_process_and_nothing_starts_again(pod):
    program = PROGRAM + "trap 'kill $!; exit 75' TERM; touch \"$workdir/ready-$index\"; sleep 100 & wait"
    process = pod(program, wait=False)
    while not all((pod.workdir / f"ready-{i}").exists() for i in range(2)):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert starts(pod, 0) == starts(pod, 1) == 1
    assert not running(pod, 0)
