"""Worker processes: lazily started, replaced, recycled, killed, never left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from w2sr_jax.core import gym
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.grading import processes
from w2sr_jax.grading.pool import GraderPool, shared_workers
from w2sr_jax.grading.processes import Verdict, WorkerPool

SLOW = ("9^{9^{9}}", "5")  # math-verify evaluates it until it is killed
EASY = ("x+x", "2x")


def test_a_late_pair_is_false_and_the_others_are_graded(children):
    with WorkerPool(workers=1, deadline_s=20.0) as pool:
        assert pool.compare([EASY]) == [Verdict(True)]
        pool.deadline_s = 2.0
        (first,) = children()
        assert pool.compare([SLOW]) == [Verdict(False, "no verdict within 2 s")]
        assert children() == set(), "killed at once, replaced only when needed"
        pool.deadline_s = 20.0
        assert pool.compare([EASY, ("x", "y")]) == [Verdict(True), Verdict(False)]
        assert children() != {first}
    assert children() == set()


def test_what_a_scorer_imports_is_no_part_of_the_deadline():
    entries, index = gym.entries_of(verifier := "gym:letter_counting:4:2:0")
    with WorkerPool(workers=1, deadline_s=1.0) as pool:  # reasoning-gym alone takes longer
        assert pool.compare([(entries[index]["answer"], "", verifier)]) == [Verdict(True)]


def test_a_killed_worker_fails_its_own_pair_only(children):
    with WorkerPool(workers=1, deadline_s=60.0) as pool:
        pool.compare([EASY])
        (pid,) = children()
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        assert pool.compare([SLOW, EASY]) == [
            Verdict(False, "the grading process was killed by SIGKILL"),
            Verdict(True),
        ]
        killer.join()


def test_a_worker_that_died_while_idle_costs_no_pair(children):
    with WorkerPool(workers=1, deadline_s=60.0) as pool:
        pool.compare([EASY])
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert pool.compare([EASY]) == [Verdict(True)]


def test_workers_are_recycled(children, monkeypatch):
    monkeypatch.setattr(processes, "RECYCLE", 2)
    with WorkerPool(workers=1, deadline_s=60.0) as pool:
        assert pool.compare([EASY]) == [Verdict(True)]
        (first,) = children()
        assert pool.compare([EASY, EASY]) == [Verdict(True)] * 2
        assert first not in children()


def test_memory_is_bounded():
    with WorkerPool(workers=1, deadline_s=60.0) as pool:
        (verdict,) = pool.compare([("\\begin{pmatrix}" + "1&" * 20 + "1\\end{pmatrix}^{9999999}", "x")])
        assert not verdict.equal


def test_workers_that_cannot_start_are_one_error_and_not_many_wrong_grades(children, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with WorkerPool() as pool, pytest.raises(W2SRError, match=r"a worker process cannot start: it exited with code 1"):
        pool.compare([EASY])
    assert children() == set()


def test_an_interrupt_leaves_no_process(children):
    def interrupt(index, verdict):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WorkerPool(workers=1, deadline_s=60.0).compare([EASY, EASY], interrupt)
    assert children() == set()


def test_a_script_without_a_main_guard_can_grade_from_a_thread_and_a_foreign_folder(tmp_path):
    (tmp_path / "sympy.py").write_text("raise RuntimeError('this is not sympy')\n")
    (tmp_path / "script.py").write_text(
        textwrap.dedent(r"""
        import sys, threading
        from w2sr_jax.grading.grade import grade, grade_many
        out = []
        def work():
            out.append(grade(r"\boxed{x+x}", "2x").correct)
            out.append(grade_many([(r"\boxed{x+x}", "3x")])[0].correct)
        thread = threading.Thread(target=work); thread.start(); thread.join()
        print(out, "jax" in sys.modules, "sympy" in sys.modules)
        """)
    )
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-P", tmp_path / "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.stdout, result.returncode) == ("[True, False] False False\n", 0), result.stderr


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_busy_worker_does_not_outlive_a_killed_parent_for_long(tmp_path):
    script = textwrap.dedent(rf"""
        import sys
        from w2sr_jax.grading import processes
        pool = processes.WorkerPool(1, deadline_s=1.0)
        pool.compare([{EASY!r}])
        print(pool._alive[0]._process.pid, flush=True)
        pool._alive[0].send(0, *{SLOW!r}, 1.0)
        print("busy", flush=True)
        sys.stdin.read()
    """)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as parent:
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "busy\n"
        parent.kill()
    for _ in range(200):
        if not _alive(pid):
            break
        time.sleep(0.1)
    assert not _alive(pid)


def test_the_worker_speaks_json_lines_and_ends_with_its_input():
    task = {"id": 7, "given": "pi/2", "gold": r"\frac{\pi}{2}", "limit_s": 60}
    result = subprocess.run(
        [sys.executable, "-m", "w2sr_jax.grading.worker"],
        input=json.dumps(task) + "\n",
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"ready": True},
        {"begun": 7},
        {"id": 7, "equal": True, "error": None},
    ]
    assert result.returncode == 0


def test_pools_share_their_processes_where_they_are_told_to(children):
    with shared_workers():
        with GraderPool(workers=1, deadline_s=60.0) as pool:
            assert [grade.correct for grade in pool.grade_many([(r"\boxed{x+x}", "2x")])] == [True]
        first = children()
        assert len(first) == 1
        with shared_workers(), GraderPool(workers=2, deadline_s=50.0) as pool:
            assert [grade.correct for grade in pool.grade_many([(r"\boxed{y+y}", "2x")])] == [False]
        assert children() == first
    assert children() == set()
    with GraderPool(workers=1) as pool:
        pool.grade_many([(r"\boxed{x+x}", "2x")])
    assert children() == set()
