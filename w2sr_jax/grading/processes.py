"""Killable worker processes that decide whether two answers are equal, each within a deadline.

One task is in flight per worker, so that the parent knows whom to kill and which pair to fail. Workers are started
when a pair needs one, replaced after `RECYCLE` tasks (sympy's caches grow) and after a death, and talk JSON lines
over pipes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from w2sr_jax.core.errors import W2SRError

RECYCLE = 200
START_S = 180.0  # importing sympy or reasoning-gym takes 1 s on an idle machine and much longer on a crowded one
TERM_S = 0.5  # from SIGTERM to SIGKILL


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the pair was found equal, and why not, if it could not be decided."""

    equal: bool
    error: str | None = None


class WorkerPool:
    """Compares pairs of answers in at most `workers` processes; use it as a context manager.

    Args:
        workers: processes at most; none is started before a pair needs it.
        deadline_s: longest time for one pair, from the moment that a worker, with all that it needs, begins.
    """

    def __init__(self, workers: int = 2, deadline_s: float = 10.0):
        self.workers, self.deadline_s = workers, deadline_s
        self._alive: list[_Worker] = []
        self._failed_starts = 0

    def compare(
        self, pairs: Sequence[tuple[str, ...]], on_done: Callable[[int, Verdict], None] | None = None
    ) -> list[Verdict]:
        """A verdict for each (given, gold) or (given, gold, verifier); `on_done(index, verdict)` is called for each.

        Raises:
            W2SRError: workers cannot be started at all (the installation is broken).
        """
        verdicts: dict[int, Verdict] = {}
        waiting = collections.deque(range(len(pairs)))

        def settle(index: int, verdict: Verdict) -> None:
            verdicts[index] = verdict
            if on_done:
                on_done(index, verdict)

        try:
            while len(verdicts) < len(pairs):
                self._drop_dead()
                busy = sum(w.task is not None for w in self._alive)
                while len(self._alive) < min(self.workers, len(waiting) + busy):
                    self._alive.append(_Worker())
                for worker in self._alive:
                    if worker.ready and worker.task is None and waiting:
                        index = waiting.popleft()
                        given, gold, *verifier = pairs[index]
                        if not worker.send(index, given, gold, self.deadline_s, *verifier):
                            waiting.appendleft(index)  # it died while idle: not this pair's fault
                self._wait()
                for worker in list(self._alive):
                    self._collect(worker, settle)
        except BaseException:
            self.close()  # an interrupted call leaves workers with unknown tasks
            raise
        return [verdicts[i] for i in range(len(pairs))]

    def close(self) -> None:
        """Ends all workers; the pool can be used again afterwards."""
        for worker in self._alive:
            worker.hang_up()
        for worker in self._alive:
            worker.stop(patience_s=1.0 if worker.task is None else 0.0)
        self._alive.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _drop_dead(self) -> None:
        for worker in [w for w in self._alive if w.task is None and w.is_dead()]:
            self._failed_starts += not worker.ready
            self._remove(worker)
            if worker.start_error or self._failed_starts >= 3:
                reason = worker.start_error or f"it {worker.how_it_ended()}"
                raise W2SRError(f"grading: a worker process cannot start: {reason}")

    def _wait(self) -> None:
        """Sleeps until some worker wrote something or some deadline passed."""
        with selectors.DefaultSelector() as selector:
            for worker in self._alive:
                selector.register(worker.output, selectors.EVENT_READ)
            deadlines = [w.deadline for w in self._alive if w.deadline]
            timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            if self._alive:
                selector.select(timeout)

    def _collect(self, worker: _Worker, settle: Callable[[int, Verdict], None]) -> None:
        """Takes a worker's answer, its death, or its lateness."""
        for message in worker.receive():
            if "ready" in message:
                worker.ready, worker.deadline = bool(message["ready"]), 0.0
                worker.start_error = message.get("error")
                self._failed_starts = 0 if worker.ready else self._failed_starts
            elif "begun" in message:
                worker.deadline = time.monotonic() + self.deadline_s
            elif worker.task is not None and worker.task == message["id"]:
                settle(worker.task, Verdict(message["equal"], message["error"]))
                worker.task, worker.deadline, worker.done = None, 0.0, worker.done + 1
                if worker.done >= RECYCLE:
                    worker.hang_up()
                    self._remove(worker, patience_s=1.0)
                    return
        task = worker.task
        if task is not None and worker.is_dead():
            self._remove(worker)
            settle(task, Verdict(False, f"the grading process {worker.how_it_ended()}"))
        elif worker.deadline and time.monotonic() >= worker.deadline:
            self._remove(worker)
            if task is None:
                raise W2SRError(f"grading: a worker process did not start within {START_S:.0f} s")
            settle(task, Verdict(False, f"no verdict within {self.deadline_s:g} s"))

    def _remove(self, worker: _Worker, patience_s: float = 0.0) -> None:
        self._alive.remove(worker)
        worker.stop(patience_s)


class _Worker:
    """One process of worker.py, its pipes, and the task it is on."""

    def __init__(self) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "w2sr_jax.grading.worker"],  # -P: a sympy.py in the cwd must not be imported
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()
        os.set_blocking(self.output, False)
        self._buffer, self._ended = b"", False
        self.ready, self.start_error = False, None
        self.task: int | None = None
        self.deadline, self.done = time.monotonic() + START_S, 0

    def send(self, index: int, given: str, gold: str, deadline_s: float, verifier: str = "math") -> bool:
        """Gives the worker a task; False if it is gone."""
        # The worker's own timer is only for the case that this process dies before it can kill the worker.
        task = {"id": index, "given": given, "gold": gold, "verifier": verifier, "limit_s": deadline_s + 5}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._ended = True
            return False
        self.task, self.deadline = index, time.monotonic() + START_S  # until it has begun
        return True

    def receive(self) -> list[dict]:
        """The messages that have arrived whole."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.output, 65536):
                self._buffer += chunk
            self._ended = True
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def is_dead(self) -> bool:
        return self._ended or self._process.poll() is not None

    def how_it_ended(self) -> str:
        code = self._process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"exited with code {code}"

    def hang_up(self) -> None:
        """Ends the worker's input, after which an idle worker exits by itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def stop(self, patience_s: float = 0.0) -> None:
        """Waits `patience_s` for the process to end, then SIGTERM, then SIGKILL; nothing is left of it afterwards."""
        self.hang_up()
        if self.is_dead():
            patience_s = max(patience_s, TERM_S)  # it is already ending: let its own exit code be seen
        for seconds, action in ((patience_s, self._process.terminate), (TERM_S, self._process.kill)):
            try:
                self._process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                action()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
