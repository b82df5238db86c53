"""`--config.profile=START:COUNT`: a jax.profiler trace of some steps, in workdir/profile.

Process 0 alone takes it, of its own host's devices: the program is the same on every one, and a trace of each host
would be large and seldom read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from absl import logging

from w2sr_jax.core import processes
from w2sr_jax.core.errors import UsageError

if TYPE_CHECKING:  # it imports JAX, and this file is read with every config
    from w2sr_jax.core.step_meter import StepMeter


def profile_window(text: str) -> tuple[int, int]:
    """(first step, number of steps) of "START:COUNT"; (0, 0) of an empty text.

    Raises:
        UsageError: it is neither.
    """
    if not text:
        return 0, 0
    if not (found := re.fullmatch(r"(\d{1,9}):([1-9]\d{0,5})", text)):
        raise UsageError(f"config.profile: expected START:COUNT, like 10:3 for steps 10 to 12, got {text!r}")
    return int(found[1]), int(found[2])


class Profile:
    """Takes the trace while a loop goes through its steps.

    Args:
        window: START:COUNT.
        workdir: the trace goes to its profile/.
        total: steps of the run.

    Raises:
        UsageError: the run ends before START.
    """

    def __init__(self, window: str, workdir: str | Path, total: int):
        first, count = profile_window(window)
        if count and first >= total:
            raise UsageError(f"config.profile: begins at step {first}, but the last step is {total - 1}")
        self._steps = range(first, first + count if processes.is_writer() else first)
        self._directory = Path(workdir) / "profile"
        self._end = min(first + count, total)
        self._from: int | None = None  # the first step of the trace that runs
        self._last = first

    @contextlib.contextmanager
    def step(self, step: int, meter: StepMeter, settle: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Around one step; the steps of the trace are named in it.

        Args:
            meter: counts what the profile itself takes.
            settle: waits for all that was dispatched, so that the trace holds whole steps and only those.
        """
        if step not in self._steps:
            yield
            return
        from jax import profiler

        if self._from is None:
            settle()
            with meter.part("profile_seconds"):
                profiler.start_trace(self._directory)
            self._from = step
        with profiler.StepTraceAnnotation("train", step_num=step):
            yield
            if step == self._end - 1:
                settle()
        self._last = step
        if step == self._end - 1:
            with meter.part("profile_seconds"):
                self._stop()

    def _stop(self) -> None:
        from jax import profiler

        profiler.stop_trace()
        logging.info(
            "profile of steps %d to %d: `uvx xprof --logdir=%s --port=8791` shows it, or open its *.trace.json.gz "
            "at https://ui.perfetto.dev",
            *(self._from, self._last, self._directory),
        )
        self._from = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._from is not None:  # the loop ended early
            self._stop()
