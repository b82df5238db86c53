r"""Equations in a response (`37+5=42*3=26`, `48 / 2 = 24`), their arithmetic, and text in which values are changed.

A result may be the left operand of the next equation, as in chains. An equation is worked left to right, or with
products first where only that gives what is written. With a modulus, values are taken modulo it and keep their width.

What is only the tail or the head of something longer (`2x + 3 + 4 = 20`, `2^3 + 1 = 9`, `6 * 7 = 21 * 2`, `... = 5x`)
is none. Operands and results may have a sign, and a result may be a fraction. Numbers of more than LONGEST characters
are those of a text that loops, and of no equation.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from fractions import Fraction

LONGEST = 100  # Python refuses to read integers of 4,300 digits and more
_NUMBER = r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_OPERATOR = r"(?:[+\-*/−×·÷]|\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\\div(?![A-Za-z]))"
NUMBER = re.compile(_NUMBER)
_SIGN = r"[-−]"
_GAP = r"[^\S\n]{0,3}"
_OPERAND = rf"(?:\({_SIGN}{_NUMBER}\)|{_SIGN}?\$?{_NUMBER})"
_NEXT = rf"{_GAP}{_OPERATOR}{_GAP}{_OPERAND}"
_EQUATION = re.compile(
    rf"(?P<first>\({_SIGN}{_NUMBER}\)|{_SIGN}?{_NUMBER})(?P<rest>(?:{_NEXT}){{1,20}}){_GAP}="
    rf"{_GAP}\$?(?P<sign>{_SIGN}?)\$?(?P<result>{_NUMBER})(?:/(?P<over>[1-9]\d{{0,8}})(?!\.?\d))?"
)
_OPERATION = re.compile(rf"{_GAP}({_OPERATOR}){_GAP}({_OPERAND})")
# A chain goes on with another `=`, or is cut off by the answer.
_LINKED = re.compile(rf"(?:{_NEXT}){{1,20}}{_GAP}(?:=|\\boxed|\Z)")
_TERM_BEFORE = re.compile(r"[A-Za-z0-9_^)}\u0370-\u03ff]$")
_TERM_BEFORE_SIGN = re.compile(rf"(?:(?<![A-Za-z])[A-Za-z]|[)}}]){_GAP}$")
_OPERATOR_BEFORE = re.compile(rf"({_OPERATOR})({_GAP})$")
_MORE_AFTER = re.compile(
    r"[A-Za-z_^(\u0370-\u03ff]|\\(?:[dt]?frac|sqrt|pi)|"
    rf"{_GAP}{_OPERATOR}{_GAP}(?:[\d(]|[A-Za-z](?![A-Za-z])|\\(?:[dt]?frac|sqrt|pi))"
)
_PLAIN = {"−": "-", "×": "*", "·": "*", "÷": "/", "\\times": "*", "\\cdot": "*", "\\div": "/"}


@dataclasses.dataclass(frozen=True, slots=True)
class Equation:
    """Where the numbers of `a op b ... = c` begin, and the operations between them."""

    operands: tuple[int, ...]
    operations: tuple[str, ...]  # of + - * /
    result: int  # where it begins
    end: int  # where it ends
    values: tuple[Fraction, ...]  # of the operands, with their signs
    written: tuple[Fraction, ...]  # what the result may say: `5/6` before another `=` is 5, as in a chain, or 5/6
    plain: bool  # no signs and no fraction: `rewrite` changes these alone

    @property
    def start(self) -> int:
        return self.operands[0]


def find(text: str, end: int | None = None) -> list[Equation]:
    """The equations of text[:end], in order."""
    found, position = [], 0
    end = len(text) if end is None else end
    while match := _EQUATION.search(text, position, end):
        if not _has_more_before(text, match) and (equation := _read(text, match, end)):
            found.append(equation)
        position = match.start("sign")  # the result may begin the next equation
    return found


def _has_more_before(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - 16) : match.start()]
    if _TERM_BEFORE.search(before):
        return True
    if match["first"][0] in "-−" and _TERM_BEFORE_SIGN.search(before):  # `x -3`
        return True
    operator = _OPERATOR_BEFORE.search(before)
    if operator is None or before.endswith("**"):  # bold type
        return False
    bullet = operator[2] and before[: operator.start()].rstrip(" ")[-1:] in ("", "\n")
    return not bullet


def _read(text: str, match: re.Match[str], end: int) -> Equation | None:
    """The equation of a match; None where the result is the head of something longer."""
    linked = _LINKED.match(text, match.end("result"), end)
    if not linked and _MORE_AFTER.match(text, match.end(), end):
        return None
    steps = list(_OPERATION.finditer(text, match.start("rest"), match.end("rest")))
    pieces = [match["first"], *(step[2] for step in steps)]
    if max(map(len, (*pieces, match["result"]))) > LONGEST:
        return None
    starts = [match.start("first"), *(step.start(2) for step in steps)]
    chained = linked is not None and linked[0].endswith("=")
    whole = value(match["result"]) * (-1 if match["sign"] else 1)
    written: tuple[Fraction, ...] = (whole,) if linked or not match["over"] else ()
    if match["over"]:
        written += (whole / int(match["over"]),)
    return Equation(
        operands=tuple(start + len(piece) - len(piece.lstrip("(-−$")) for start, piece in zip(starts, pieces)),
        operations=tuple(_PLAIN.get(step[1], step[1]) for step in steps),
        result=match.start("result"),
        end=match.end("result") if linked else match.end(),
        values=tuple(_signed(piece) for piece in pieces),
        written=written,
        plain=not (
            match["sign"] or (match["over"] and not chained) or any(piece.lstrip("(")[0] in "-−" for piece in pieces)
        ),
    )


def _signed(piece: str) -> Fraction:
    return value(piece.strip("(-−$)")) * (-1 if piece.lstrip("(")[0] in "-−" else 1)


def value(text: str) -> Fraction:
    """A number as it is written."""
    return Fraction(text.replace(",", ""))


def holds(equation: Equation, modulus: int = 0) -> bool:
    """Whether the equation is right, in either order of operations."""
    worked = {_work(list(equation.values), equation.operations, first, modulus) for first in (False, True)}
    return not worked.isdisjoint(equation.written)


def rewrite(text: str, offsets: Mapping[int, int], *, modulus: int = 0, carry: bool = True) -> str:
    """The text with some results changed.

    Args:
        offsets: where a result begins -> what is added to it.
        modulus: that values are taken modulo; 0 is none.
        carry: what comes after goes on from the changed values, so that the final answer follows them.

    A later result that depends on a changed value is moved by as much as its true value moves: a step that was right
    is right from its new operands, one that was off stays off by as much.
    """
    by_result = {equation.result: equation for equation in find(text) if equation.plain}
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
