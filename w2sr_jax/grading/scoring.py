"""Every way in which a response is scored: by two graders, and by its first box, its last box, or up to its first box.

`main` alone counts as the score. The rest tells what it would have been under another rule, which is how published
numbers of the same model come to differ by several points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from w2sr_jax.core.boxes import first_box, last_box, stop_at_box
from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.grading.second import second_equal
from w2sr_jax.grading.verdict import Grade


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """One response under every rule.

    Args:
        main: the grade that counts (the last box, or an answer in words where there is no box).
        second: the second grader's opinion of the same extracted answer.
        first_box: whether the first box holds the answer; False without a box.
        last_box: whether the last one does; False without a box.
        stop_at_box: whether the response is right if it is cut after its first complete box.
    """

    main: Grade
    second: bool
    first_box: bool
    last_box: bool
    stop_at_box: bool

    @property
    def by_box(self) -> dict[str, bool]:
        """The rules that differ in which box they read."""
        return {"first_box": self.first_box, "last_box": self.last_box, "stop_at_box": self.stop_at_box}


def score_many(
    pool: GraderPool, pairs: Sequence[tuple[str, str]], verifiers: Sequence[str] | None = None
) -> list[Score]:
    """One Score for each (response, answer). Where a response has one box at most, the rules cost nothing more."""
    kinds = ["math"] * len(pairs) if verifiers is None else list(verifiers)
    texts, owners = list(pairs), list(kinds)
    variants: list[tuple[int, int] | None] = []  # places of the first box and of the cut response in `texts`
    for (response, answer), kind in zip(pairs, kinds):
        head, first = stop_at_box(response), first_box(response)
        if head == response or (first is not None and first == last_box(response)):
            variants.append(None)
            continue
        variants.append((len(texts), len(texts) + 1))
        texts += [("" if first is None else f"\\boxed{{{first}}}", answer), (head, answer)]
        owners += [kind, kind]
    grades = pool.grade_many(texts, owners)
    return [
        _score(response, answer, kind, grades, index, places)
        for index, ((response, answer), kind, places) in enumerate(zip(pairs, kinds, variants))
    ]


def _score(
    response: str, answer: str, kind: str, grades: list[Grade], index: int, places: tuple[int, int] | None
) -> Score:
    main = grades[index]
    boxed = main.correct and last_box(response) is not None
    first, stopped = boxed and first_box(response) is not None, main.correct
    if places is not None:
        first, stopped = (grades[place].correct for place in places)
    second = main.correct if kind != "math" else main.extracted is not None and second_equal(main.extracted, answer)
    return Score(main, second, first, boxed, stopped)
