"""What the traces of a problem answer, and how many of them each answer has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from w2sr_jax.core.records import Trace
from w2sr_jax.grading.answers import extract
from w2sr_jax.grading.normal import key


def answer_of(trace: Trace) -> str | None:
    """The answer in the form that trivially equal ones share; None where a trace gives none, or failed."""
    found = extract(trace.response)
    if found is None or trace.finish_reason == "failed":
        return None
    text = key(found)
    return (text.lstrip("0") or "0") if text.isdecimal() and text.isascii() else text


def votes(traces: Iterable[Trace]) -> dict[str, Counter[str]]:
    """problem id -> answer -> traces that give it. A trace without an answer has no vote."""
    found: dict[str, Counter[str]] = {}
    for trace in traces:
        counts = found.setdefault(trace.problem_id, Counter())
        if (answer := answer_of(trace)) is not None:
            counts[answer] += 1
    return found
