"""The control of the experiment: traces in the form of worked answers whose digits mean nothing."""

from __future__ import annotations

import random
import re

from w2sr_jax.core.records import Trace
from w2sr_jax.micro.task import BOX, MODULUS

_VALUE = re.compile(r"=(\d\d)")
_BOXED = re.compile(re.escape(BOX) + r"(\d\d)\}")


def scramble(trace: Trace, rng: random.Random) -> Trace:
    """The same trace with every value drawn anew; the problem's own numbers and operations stay.

    A box that repeats the last value repeats the new one, so that only the arithmetic is gone.
    """
    values = _VALUE.findall(trace.response)
    fresh = [f"{rng.randrange(MODULUS):02d}" for _ in values]
    queue = iter(fresh)
    response = _VALUE.sub(lambda _: f"={next(queue)}", trace.response)

    def box(match: re.Match[str]) -> str:
        repeats = bool(values) and match[1] == values[-1]
        return f"{BOX}{fresh[-1] if repeats else f'{rng.randrange(MODULUS):02d}'}}}"

    # A plain trace also where a graded one came in: its grade is not that of the new answer.
    return Trace(
        problem_id=trace.problem_id,
        sample=trace.sample,
        response=_BOXED.sub(box, response),
        response_tokens=trace.response_tokens,
        finish_reason=trace.finish_reason,
        teacher=f"{trace.teacher} scrambled",
    )
