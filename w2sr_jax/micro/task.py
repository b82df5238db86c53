r"""The embedded task: one to five operations, left to right, modulo 100; its written solutions; its splits.

    37+5*3=?

Answered directly, `\boxed{26}`, or with work, which comes in two styles that differ in the first value only:

    careful   <work>37+5=42*3=26\boxed{26}
    sloppy    <work>37+5*3=26\boxed{26}       the first two operations are done in one's head

Numbers have two digits everywhere.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Container, Iterator, Sequence
from typing import ClassVar, Protocol, Self

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import Problem

MODULUS = 100
MAX_OPERATIONS = 5
OPERANDS = {"+": range(2, 6), "-": range(2, 6), "*": range(2, 4)}
OPERATIONS = "++--*"  # drawn from; every single step has to be learned from little text
SPLITS = ("train", "validation", "test")
WORK = "<work>"  # begins a worked response
BOX = "\\boxed{"
QUESTION = "=?"  # ends a problem


class Task(Protocol):
    """What base models, problems and solutions are made of: a start and operations, one after the other."""

    max_operations: ClassVar[int]
    shortest: ClassVar[int]  # how many problems of one operation there are

    @property
    def text(self) -> str:
        """The problem as it is asked. Two are the same problem exactly when their texts are equal."""

    def direct(self) -> str:
        """The response without work."""

    def worked(self, in_head: int = 1) -> str:
        """The response with work.

        Args:
            in_head: operations done before the first value is written; 1 is the careful style, 2 the sloppy one.
        """

    def problem(self, problem_id: str) -> Problem: ...

    @classmethod
    def draw(cls, rng: random.Random, operations: int) -> Self:
        """A random problem of so many operations."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The problem whose text this is."""

    @classmethod
    def careful_start(cls, problem: str) -> str:
        """How a careful response begins: up to the first value, which only the careful style writes there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """A problem: a start value and the operations applied to it."""

    max_operations: ClassVar[int] = MAX_OPERATIONS
    shortest: ClassVar[int] = MODULUS * sum(map(len, OPERANDS.values()))
    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        """The problem as it is asked. Two chains are the same problem exactly when their texts are equal."""
        return f"{self.start:02d}{''.join(f'{op}{operand}' for op, operand in self.operations)}{QUESTION}"

    @property
    def values(self) -> list[int]:
        """The value after each operation."""
        value, values = self.start, []
        for op, operand in self.operations:
            value = {"+": value + operand, "-": value - operand, "*": value * operand}[op] % MODULUS
            values.append(value)
        return values

    @property
    def answer(self) -> str:
        return f"{self.values[-1]:02d}"

    def direct(self) -> str:
        """The response without work."""
        return f"{BOX}{self.answer}}}"

    def worked(self, in_head: int = 1) -> str:
        """The response with work.

        Args:
            in_head: operations done before the first value is written; 1 is the careful style, 2 the sloppy one.
        """
        text = f"{WORK}{self.start:02d}"
        for done, ((op, operand), value) in enumerate(zip(self.operations, self.values, strict=True), 1):
            text += f"{op}{operand}"
            if done >= min(in_head, len(self.operations)):
                text += f"={value:02d}"
        return text + self.direct()

    def problem(self, problem_id: str) -> Problem:
        return Problem(
            id=problem_id, problem=self.text, answer=self.answer, source="micro", level=str(len(self.operations))
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The chain whose text this is.

        Raises:
            W2SRError: it is no problem of this task.
        """
        if not re.fullmatch(r"\d\d([-+*]\d)+=\?", text):
            raise W2SRError(f"micro: {text[:40]!r} is no problem of the embedded task")
        return cls(int(text[:2]), tuple((op, int(operand)) for op, operand in re.findall(r"([-+*])(\d)", text[2:])))

    @classmethod
    def draw(cls, rng: random.Random, operations: int) -> Self:
        """A random problem of so many operations."""
        chosen = [rng.choice(OPERATIONS) for _ in range(operations)]
        return cls(rng.randrange(MODULUS), tuple((op, rng.choice(OPERANDS[op])) for op in chosen))

    @classmethod
    def careful_start(cls, problem: str) -> str:
        """Up to the first value."""
        return f"{WORK}{problem[:4]}="


def stream[T: Task](
    rng: random.Random, weights: Sequence[float], held_out: Container[str], task: type[T]
) -> Iterator[T]:
    """Endless problems, none of whose texts is in `held_out`.

    Args:
        weights: relative frequency of 1, 2, ... operations.
    """
    lengths = range(1, len(weights) + 1)
    while True:
        drawn = task.draw(rng, rng.choices(lengths, weights)[0])
        if drawn.text not in held_out:
            yield drawn


def make_splits(seed: int, sizes: dict[str, int], task: type[Task] = Chain) -> dict[str, list[Problem]]:
    """Pairwise disjoint sets of distinct problems, every length as frequent as every other in each of them.

    Args:
        sizes: split name -> problems.

    Raises:
        W2SRError: the sizes ask for most of the problems of one operation that exist.
    """
    if sum(sizes.values()) / task.max_operations > 0.8 * task.shortest:
        raise W2SRError(
            f"micro: {sum(sizes.values())} problems need more than 80 % of the {task.shortest} of one operation; "
            "lower sizes"
        )
    rng, taken = random.Random(f"micro problems {seed}"), set[str]()
    splits: dict[str, list[Problem]] = {}
    for name, size in sizes.items():
        splits[name] = []
        while len(splits[name]) < size:
            index = len(splits[name])
            drawn = task.draw(rng, 1 + index % task.max_operations)
            if drawn.text not in taken:
                taken.add(drawn.text)
                splits[name].append(drawn.problem(f"{name}-{index:04d}"))
    return splits
