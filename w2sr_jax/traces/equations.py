r"""Equations in a response (`37+5=42*3=26`, `48 / 2 = 24`), their arithmetic, and text in which values are changed.

A result may be the left operand of the next equation, as in chains. An equation is worked left to right, or with
products first where only that gives what is written. With a modulus, values are taken modulo it and keep their width.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from fractions import Fraction

_NUMBER = r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_OPERATOR = r"(?:[+\-*/−×·÷]|\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\\div(?![A-Za-z]))"
NUMBER = re.compile(_NUMBER)
_EQUATION = re.compile(
    rf"{_NUMBER}(?:\s{{0,3}}{_OPERATOR}\s{{0,3}}\$?{_NUMBER}){{1,20}}\s{{0,3}}=\s{{0,3}}\$?({_NUMBER})"
)
_SIGNS = re.compile(_OPERATOR)
_PLAIN = {"−": "-", "×": "*", "·": "*", "÷": "/", "\\times": "*", "\\cdot": "*", "\\div": "/"}


@dataclasses.dataclass(frozen=True, slots=True)
class Equation:
    """Where the numbers of `a op b ... = c` begin, and the operations between them."""

    operands: tuple[int, ...]
    operations: tuple[str, ...]  # of + - * /
    result: int  # where it begins
    end: int  # where it ends

    @property
    def start(self) -> int:
        return self.operands[0]


def find(text: str, end: int | None = None) -> list[Equation]:
    """The equations of text[:end], in order."""
    found, position = [], 0
    end = len(text) if end is None else end
    while match := _EQUATION.search(text, position, end):
        left = text[match.start() : match.start(1)].rpartition("=")[0]
        operands = tuple(match.start() + number.start() for number in NUMBER.finditer(left))
        operations = tuple(_PLAIN.get(sign, sign) for sign in _SIGNS.findall(left))
        found.append(Equation(operands, operations, match.start(1), match.end(1)))
        position = match.start(1)  # the result may begin the next equation
    return found


def value(text: str) -> Fraction:
    """A number as it is written."""
    return Fraction(text.replace(",", ""))


def holds(text: str, equation: Equation, modulus: int = 0) -> bool:
    """Whether the equation is right, in either order of operations."""
    operands = [_at(text, start) for start in equation.operands]
    written = _at(text, equation.result)
    return any(_work(operands, equation.operations, first, modulus) == written for first in (False, True))


def rewrite(text: str, offsets: Mapping[int, int], *, modulus: int = 0, carry: bool = True) -> str:
    """The text with some results changed.

    Args:
        offsets: where a result begins -> what is added to it.
        modulus: that values are taken modulo; 0 is none.
        carry: what comes after goes on from the changed values, so that the final answer follows them.

    A later result that depends on a changed value is moved by as much as its true value moves: a step that was right
    is right from its new operands, one that was off stays off by as much.
    """
    by_result = {equation.result: equation for equation in find(text)}
    values: dict[int, Fraction] = {}  # of numbers that changed, by where they began
    renamed: dict[str, str] = {}  # numbers as they stood -> as they stand now
    pieces: list[str] = []
    last = 0
    for match in NUMBER.finditer(text):
        old, start = match[0], match.start()
        equation = by_result.get(start)
        if equation is None:
            new = renamed.get(old, old) if carry else old
        else:
            changed = value(old) + offsets.get(start, 0)
            if carry:
                changed += _moved(text, equation, values, modulus)
            new = in_manner_of(changed, old, modulus) if changed != value(old) else old
            renamed.pop(old, None)
        if new != old:
            values[start] = value(new.lstrip("-")) * (-1 if new.startswith("-") else 1)
            renamed[old] = new
            pieces += [text[last:start], new]
            last = match.end()
    return "".join([*pieces, text[last:]])


def _moved(text: str, equation: Equation, values: dict[int, Fraction], modulus: int) -> Fraction:
    if not any(start in values for start in equation.operands):
        return Fraction(0)
    before = [_at(text, start) for start in equation.operands]
    after = [values.get(start, number) for start, number in zip(equation.operands, before)]
    written = _at(text, equation.result)
    first = _work(before, equation.operations, True, modulus) == written
    old, new = (_work(numbers, equation.operations, first, modulus) for numbers in (before, after))
    return Fraction(0) if old is None or new is None else new - old


def _work(numbers: list[Fraction], operations: tuple[str, ...], products_first: bool, modulus: int) -> Fraction | None:
    """The value of a chain of operations; None for a division by zero."""
    total, term = Fraction(0), numbers[0]
    for operation, number in zip(operations, numbers[1:]):
        if operation in "+-":
            number = number if operation == "+" else -number
            total, term = (total + term, number) if products_first else (Fraction(0), total + term + number)
        elif operation == "*":
            term *= number
        elif number:
            term /= number
        else:
            return None
    total += term
    return total % modulus if modulus else total


def number_at(text: str, start: int) -> str:
    """The number that begins there."""
    match = NUMBER.match(text, start)
    assert match is not None, text[start : start + 20]
    return match[0]


def _at(text: str, start: int) -> Fraction:
    return value(number_at(text, start))


def in_manner_of(number: Fraction | int, like: str, modulus: int = 0) -> str:
    """A number written like another: as many decimals, and with a modulus as many digits."""
    if modulus:
        return str(int(number % modulus)).zfill(len(like))
    _, _, decimals = like.partition(".")
    if Fraction(number).denominator == 1 and not decimals:
        return str(int(number))
    return f"{float(number):.{len(decimals) or 2}f}"
