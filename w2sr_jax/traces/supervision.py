r"""What a student is shown of a trace: the answer alone, or the reasoning without it."""

from __future__ import annotations

from w2sr_jax.core.records import EditedTrace, Trace
from w2sr_jax.traces.edits import edited
from w2sr_jax.traces.steps import answer_span, reasoning_end


def answer_only(trace: Trace) -> EditedTrace | None:
    r"""`\boxed{...}` and nothing else; None for a trace without an answer."""
    span = answer_span(trace.response)
    return None if span is None else edited(trace, trace.response[slice(*span)], "answer only")


def reasoning_only(trace: Trace) -> EditedTrace | None:
    """What stands before the final answer; None for a trace in which nothing does.

    It counts as cut off (finish_reason "length"), so that nothing teaches the student to stop without an answer.
    """
    reasoning = trace.response[: reasoning_end(trace.response)]
    return edited(trace, reasoning, "reasoning only", "length") if reasoning.strip() else None
