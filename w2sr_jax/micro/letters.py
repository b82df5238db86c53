r"""A second embedded task, without numbers: letters that change places. Written like the first, verified as text.

    dbca14=?        1, 2, 3 swap a letter with the next one; 4 puts the first letter last

Answered directly, `\boxed{dcab}`, or with work, carefully (`<work>dbca1=bdca4=dcab\boxed{dcab}`) or sloppily
(`<work>dbca14=dcab\boxed{dcab}`).
"""

from __future__ import annotations

import dataclasses
import random
import re
from typing import ClassVar, Self

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import Problem
from w2sr_jax.micro.task import BOX, QUESTION, WORK

ALPHABET = "abcdefgh"
PLACES = 4
OPERATIONS = "1234"


@dataclasses.dataclass(frozen=True, slots=True)
class Letters:
    """A problem: letters in a row and the moves applied to them."""

    max_operations: ClassVar[int] = 4
    shortest: ClassVar[int] = 8 * 7 * 6 * 5 * len(OPERATIONS)
    start: str
    operations: str

    @property
    def text(self) -> str:
        """The problem as it is asked."""
        return f"{self.start}{self.operations}{QUESTION}"

    @property
    def values(self) -> list[str]:
        """The row after each move."""
        row, values = self.start, []
        for operation in self.operations:
            place = int(operation)
            row = (
                row[1:] + row[0]
                if place == PLACES
                else row[: place - 1] + row[place] + row[place - 1] + row[place + 1 :]
            )
            values.append(row)
        return values

    @property
    def answer(self) -> str:
        return self.values[-1]

    def direct(self) -> str:
        """The response without work."""
        return f"{BOX}{self.answer}}}"

    def worked(self, in_head: int = 1) -> str:
        """The response with work; `in_head` moves are done before the first row is written."""
        text = f"{WORK}{self.start}"
        for done, (operation, value) in enumerate(zip(self.operations, self.values), 1):
            text += operation
            if done >= min(in_head, len(self.operations)):
                text += f"={value}"
        return text + self.direct()

    def problem(self, problem_id: str) -> Problem:
        return Problem(
            id=problem_id,
            problem=self.text,
            answer=self.answer,
            source="micro-letters",
            level=str(len(self.operations)),
            verifier="exact",
        )

    @classmethod
    def draw(cls, rng: random.Random, operations: int) -> Self:
        """A random problem of so many moves."""
        return cls("".join(rng.sample(ALPHABET, PLACES)), "".join(rng.choices(OPERATIONS, k=operations)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The problem whose text this is.

        Raises:
            W2SRError: it is none of this task.
        """
        match = re.fullmatch(rf"([{ALPHABET}]{{{PLACES}}})([{OPERATIONS}]+)=\?", text)
        if match is None or len(set(match[1])) < PLACES:
            raise W2SRError(f"micro: {text[:40]!r} is no problem of the letters task")
        return cls(match[1], match[2])

    @classmethod
    def careful_start(cls, problem: str) -> str:
        """Up to the first row."""
        return f"{WORK}{problem[: PLACES + 1]}="
