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
DYING_S = 2.0  # that orphans get to end


class Others:
    """Share of the machine's processor time that went to others since this was made; None where nobody counts it."""

    def __init__(self) -> None:
        _adopt_orphans()
        self._busy, self._own, self._began = _busy_seconds(), _own_seconds(), time.monotonic()

    def share(self) -> float | None:
        """Call it when the processes that one started have ended: only then are they known as one's own."""
        _reap()
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        capacity = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        return max(0.0, (busy - self._busy) - (_own_seconds() - self._own)) / capacity


def _adopt_orphans() -> None:
    """Makes this process the parent of what its children leave behind (vLLM's engine, say): its time then counts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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
