"""A few responses to look at: numbers alone have hidden students that never stop and boxes that are never closed."""

from __future__ import annotations

import dataclasses

from w2sr_jax.core.records import Prediction
from w2sr_jax.reporting.load import Arms

SHOWN_CHARACTERS = 1200


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One response of one arm, shortened in the middle."""

    arm: str
    prediction: Prediction
    text: str


def pick(arms: Arms) -> list[Sample]:
    """For every arm the first right and the first wrong response, if it has them."""
    found = []
    for arm, evaluations in arms.items():
        predictions = [p for evaluation in evaluations.values() for p in evaluation.predictions]
        for wanted in (True, False):
            chosen = next((p for p in predictions if p.correct == wanted), None)
            if chosen is not None:
                found.append(Sample(arm, chosen, shorten(chosen.response)))
    return found


def shorten(text: str) -> str:
    """At most SHOWN_CHARACTERS of a text: its beginning and its end."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    half = SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"
