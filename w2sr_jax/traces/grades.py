"""Traces with whether they are right: by their own grade, or graded here where they have none and a known problem."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from w2sr_jax.core.records import GradedTrace, Problem, Trace
from w2sr_jax.grading.pool import GraderPool

AT_ONCE = 1024  # bounds what is held in memory


def graded(traces: Iterable[Trace], problems: Mapping[str, Problem]) -> Iterator[tuple[Trace, bool | None]]:
    """Each trace with its correctness, in order; None where its problem is not known, or the engine died of it.

    Args:
        problems: by id.
    """
    with GraderPool() as pool:  # starts no process unless an answer needs computer algebra
        for batch in itertools.batched(traces, AT_ONCE):
            known: dict[int, bool | None] = {
                i: trace.correct for i, trace in enumerate(batch) if isinstance(trace, GradedTrace)
            }
            asked = [
                i
                for i, trace in enumerate(batch)
                if i not in known and trace.problem_id in problems and trace.finish_reason != "failed"
            ]
            answers = [problems[batch[i].problem_id] for i in asked]
            pairs = [(batch[i].response, problem.answer) for i, problem in zip(asked, answers, strict=True)]
            for i, grade in zip(asked, pool.grade_many(pairs, [p.verifier for p in answers]), strict=True):
                known[i] = grade.correct
            for i, trace in enumerate(batch):
                yield trace, known.get(i)
