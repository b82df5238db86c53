"""A change of a trace, with the record that undoes it.

What comes back is the response and the finish_reason that the change was made from: those of the file that `transform`
read, and of a trace that was changed twice those in between. Grades do not come back, `filter` gives them anew. So a
whole file is restored:

    write_jsonl("restored.jsonl", map(restored, read_jsonl("runs/slips/traces.jsonl", EditedTrace)))
"""

from __future__ import annotations

from w2sr_jax.core.records import EditedTrace, FinishReason, RecordError, Trace


def edited(trace: Trace, response: str, edit: str, finish_reason: FinishReason | None = None) -> EditedTrace:
    """The trace with another response; what was and is between their common beginning and end is recorded.

    Of a graded trace the grade is left out, of an edited one the record of the change before.

    Args:
        edit: what was done, in words; empty for a trace that stays as it is.
        finish_reason: the new one; None keeps it.
    """
    old = trace.response
    shorter = min(len(old), len(response))
    at = next((i for i in range(shorter) if old[i] != response[i]), shorter)
    same = next((i for i in range(shorter - at) if old[-1 - i] != response[-1 - i]), shorter - at)
    return EditedTrace(
        problem_id=trace.problem_id,
        sample=trace.sample,
        response=response,
        response_tokens=trace.response_tokens,
        finish_reason=finish_reason or trace.finish_reason,
        teacher=trace.teacher,
        edit=edit,
        at=at,
        was=old[at : len(old) - same],
        now=response[at : len(response) - same],
        was_finish_reason=trace.finish_reason,
    )


def restored(trace: EditedTrace) -> Trace:
    """The trace before its last change, without the grade that it may have had.

    Raises:
        RecordError: the response is not the one that the record was made for.
    """
    end = trace.at + len(trace.now)
    if not 0 <= trace.at <= len(trace.response) or trace.response[trace.at : end] != trace.now:
        raise RecordError(f"problem {trace.problem_id!r} sample {trace.sample}: now: is not what stands at {trace.at}")
    return Trace(
        problem_id=trace.problem_id,
        sample=trace.sample,
        response=trace.response[: trace.at] + trace.was + trace.response[end:],
        response_tokens=trace.response_tokens,
        finish_reason=trace.was_finish_reason,
        teacher=trace.teacher,
    )
