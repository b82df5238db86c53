"""Grading while the next responses are still being written."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
from typing import Self

from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.grading.verdict import Grade


class GradingAhead:
    """Grades what it is given on a thread of its own; use it as a context manager.

    The pool must not be used otherwise meanwhile.
    """

    def __init__(self, pool: GraderPool):
        self._pool, self._grades = pool, dict[int, Grade]()
        self._waiting = queue.SimpleQueue[tuple[int, tuple[str, str], str]]()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "grading")
        self._rounds: list[concurrent.futures.Future[None]] = []

    def put(self, place: int, pair: tuple[str, str], verifier: str) -> None:
        """Has (response, answer) graded; `place` names it among the results. Returns at once, on any thread."""
        self._waiting.put((place, pair, verifier))
        self._rounds.append(self._thread.submit(self._round))

    def results(self) -> list[Grade]:
        """Waits for all grades, which come in the order of their places.

        Raises:
            W2SRError: as GraderPool.grade_many.
        """
        for each in self._rounds:
            each.result()
        return [self._grades[place] for place in sorted(self._grades)]

    def _round(self) -> None:
        """Grades all that waits, so that the pool's processes share it."""
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._waiting.get_nowait())
        if taken:
            places, pairs, verifiers = zip(*taken)
            self._grades.update(zip(places, self._pool.grade_many(pairs, verifiers)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.shutdown(cancel_futures=True)
