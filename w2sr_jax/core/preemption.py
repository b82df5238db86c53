"""SIGTERM, the notice that this machine will be taken away: training saves and ends with exit code 75.

Inside `at_step_ends` the notice waits for the end of a step; the processes of one run agree on which step, however few
of them got the signal. Anywhere else it ends the program at once, as Ctrl-C does: every stage resumes. A notice that
comes during the last step of a loop is still `pending` after it: `w2sr run` asks before it begins another stage.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from w2sr_jax.core import processes
from w2sr_jax.core.errors import Preempted

_lock = threading.Lock()
_waits = False  # inside at_step_ends
_noticed = False  # by this process
# A place is (which loop of this program, step of it): an experiment has several loops, each of which counts from 0.
_asked_at = (0, -1)  # the last place at which `now` was called
_stop_at: tuple[int, int] | None = None


@contextlib.contextmanager
def on_sigterm() -> Iterator[None]:
    """Takes SIGTERM as a notice while the body runs; JAX's own handler, if it has one, is put aside."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there only
        yield
        return
    _reset()
    before = signal.signal(signal.SIGTERM, _notice)
    if processes.count() > 1:
        processes.listen("stop", _agree)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
        _reset()


@contextlib.contextmanager
def at_step_ends() -> Iterator[None]:
    """A loop that asks `now` at each step: until it ends, a notice waits to be asked for."""
    global _waits, _asked_at
    with _lock:
        _asked_at = (_asked_at[0] + 1, -1)
    _waits = True
    try:
        yield
    finally:
        _waits = False


def now(step: int) -> bool:
    """Whether to save and stop before this step; the same answer on every process.

    Args:
        step: counts up by one from call to call.
    """
    global _asked_at
    with _lock:
        _asked_at = (_asked_at[0], step)
        return _stop_at is not None and _asked_at >= _stop_at


def pending() -> bool:
    """Whether a notice has come that nothing has stopped for yet; processes may differ in it."""
    return _noticed or _stop_at is not None


def _reset() -> None:
    global _noticed, _asked_at, _stop_at
    _noticed, _asked_at, _stop_at = False, (0, -1), None


def _notice(signum: int, frame: Any) -> None:
    global _noticed, _stop_at
    _noticed = True
    if processes.count() == 1:
        _stop_at = (0, 0)  # also where the exception is lost, as it is inside a callback of Python's garbage collector
    if not _waits:
        raise Preempted
    if processes.count() > 1:
        threading.Thread(target=processes.publish, args=("stop", True), daemon=True).start()


def _agree(notice: Any) -> None:
    """In a thread of each process: agrees with the others on the first step that none of them has begun.

    The lock keeps this process from beginning another step meanwhile. The main threads take no part, so it does not
    matter that one of them waits for another in a collective.
    """
    global _stop_at
    with _lock:
        loop, step = max(processes.gather("stopping", _asked_at))
        _stop_at = (loop, step + 1)
