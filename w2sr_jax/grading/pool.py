"""Many responses at once, over worker processes that are started only when some answer needs computer algebra."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from w2sr_jax.grading.processes import Verdict, WorkerPool
from w2sr_jax.grading.verdict import Grade, decide

_shared: list[WorkerPool] = []  # at most one


@contextlib.contextmanager
def shared_workers() -> Iterator[None]:
    """Within it every GraderPool uses the same processes, one after the other: starting one loads sympy each time."""
    if _shared:
        yield
        return
    with WorkerPool() as workers:
        _shared.append(workers)
        try:
            yield
        finally:
            _shared.clear()


class GraderPool:
    """Grades many responses with the same worker processes; use it as a context manager.

    Args:
        workers: processes at most. Answers that need no computer algebra start none.
        deadline_s: longest time for one response.
    """

    def __init__(self, workers: int = 2, deadline_s: float = 10.0):
        self._own = not _shared
        self._pool = WorkerPool(workers, deadline_s) if self._own else _shared[0]
        self._pool.workers, self._pool.deadline_s = workers, deadline_s

    def grade_many(
        self,
        pairs: Sequence[tuple[str, str]],
        verifiers: Sequence[str] | None = None,
        on_graded: Callable[[int], None] | None = None,
    ) -> list[Grade]:
        """One Grade for each (response, answer).

        Args:
            verifiers: one for each pair; all "math" by default.
            on_graded: called with the number of pairs graded so far.

        Raises:
            W2SRError: no worker process can be started (the installation is broken, whatever the texts are).
        """
        grades: list[Grade | None] = []
        open_pairs: dict[tuple[str, str, str], list[int]] = {}  # each different pair is compared once
        for index, (response, answer) in enumerate(pairs):
            verifier = "math" if verifiers is None else verifiers[index]
            extracted, grade = decide(response, answer, verifier)
            grades.append(grade)
            if grade is None and extracted is not None:
                open_pairs.setdefault((extracted, answer, verifier), []).append(index)
        unique = list(open_pairs)
        graded = len(grades) - sum(map(len, open_pairs.values()))
        if on_graded and graded:
            on_graded(graded)

        def settle(position: int, verdict: Verdict) -> None:
            nonlocal graded
            pair = unique[position]
            for index in open_pairs[pair]:
                grades[index] = Grade(pair[0], verdict.equal, verdict.error)
            graded += len(open_pairs[pair])
            if on_graded:
                on_graded(graded)

        self._pool.compare(unique, settle)
        return [grade for grade in grades if grade is not None]

    def close(self) -> None:
        """Ends the worker processes, unless they are shared."""
        if self._own:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
