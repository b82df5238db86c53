"""Whether a measurement had the machine to itself: what other processes used of its processor time meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
DYING_S = 20.0  # that orphans get to end: vLLM's engine takes seconds, and counts as others until then


class Others:
    """As a context: the share of the machine's processor time that meanwhile went to others.

    `share` is known when the context ends, None where nobody counts. Processes that were begun in it must have ended by
    then: only then are they known as one's own.
    """

    share: float | None = None

    def __enter__(self) -> Others:
        _adopt_orphans(True)
        self._busy, self._own, self._began = _busy_seconds(), _own_seconds(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        _reap()
        _adopt_orphans(False)
        busy = _busy_seconds()
        if busy is not None and self._busy is not None:
            capacity = (time.monotonic() - self._began) * (os.cpu_count() or 1)
            self.share = max(0.0, (busy - self._busy) - (_own_seconds() - self._own)) / capacity


def _adopt_orphans(do: bool) -> None:
    """Makes this process the parent of what its children leave behind (vLLM's engine, say): its time then counts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(do), 0, 0, 0)


def _reap() -> None:
    until = time.monotonic() + DYING_S
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] or time.monotonic() < until:
            time.sleep(0.02)


def _busy_seconds() -> float | None:
    """Processor seconds that the whole machine has spent since it started, idling and waiting left out."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(int, path.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
