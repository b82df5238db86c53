r"""The second grader: an opinion beside math-verify's, in the manner of the evaluation code of Qwen2.5-Math.

Published scores of this family of papers were made by graders of that kind, which compare (1) the answers' text in a
normal form, (2) numbers to a relative 1e-4 and, because of percentages, up to a factor of 100, (3) tuples and matrices
element by element, and (4) expressions by what they evaluate to. Its leniencies are kept on purpose: where the two
graders disagree, a published score may rest on them. The score that counts (`pass_at_1`) never does.

Pure, total and fast: it runs in this process, evaluates expressions at a few points instead of simplifying them, and
calls whatever it cannot read unequal unless the texts are the same.
"""

from __future__ import annotations

import cmath
import re

from w2sr_jax.grading.expression import POINTS, Unreadable, values

SECOND_VERSION = "qwen-style-2"
MAX_CHARS, MAX_ITEMS, TOLERANCE = 2000, 64, 1e-4

_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle)(?![A-Za-z])\.?")
_SPACES = re.compile(r"(?<!\\)\\[,;:! ]|\\q?quad(?![A-Za-z])|~|\s+")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_DEGREES = re.compile(r"\^\{?\\circ\}?|\\degree(?![A-Za-z])|°")
_FONTS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boldsymbol|bm|mbox|operatorname)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d}])\s*\\(?:text|mathrm|mbox)\s*\{(?!\s*[ie]\s*\})[^{}]*\}(?:\^\{?-?\d\}?)?$")
_PLAIN_UNIT = re.compile(r"(?<=\d)\s+[A-Za-z]{2,}[A-Za-z\s.]*$")
_NUMBER = re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?$")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MATRIX = re.compile(r"^\\begin\{([pbv]?matrix|array)\}(?:\{[a-z|]*\})?(.*)\\end\{\1\}$", re.DOTALL)


def second_equal(given: str, gold: str, depth: int = 0) -> bool:
    """Whether `given` answers what `gold` answers, in this grader's opinion. Never raises, whatever the texts hold."""
    if len(given) > MAX_CHARS or len(gold) > MAX_CHARS or depth > 3:
        return given.strip() == gold.strip() != ""
    one, two = _normal(given), _normal(gold)
    if one == two:
        return bool(one)
    if not one or not two:
        return False
    first, second = _number(one), _number(two)
    if first is not None and second is not None:
        return any(_close(first, scaled) for scaled in (second, second / 100, second * 100))
    if (ours := _rows(one)) and (theirs := _rows(two)):
        return len(ours) == len(theirs) and all(_items_equal(a, b, depth) for a, b in zip(ours, theirs))
    if (parts := _items(one)) and (others := _items(two)) and max(len(parts), len(others)) > 1:
        return _items_equal(parts, others, depth)
    if bare := _unbracketed(one, two):
        return second_equal(*bare, depth + 1)
    return _same_equation(one, two, depth) if "=" in one + two else _same_value(one, two)


def _normal(text: str) -> str:
    """The answer without what carries no meaning, in lower case where it is a word."""
    text = text.strip().rstrip(".").replace("−", "-").replace("{,}", ",").replace(r"\$", "").replace("$", "")
    text = _UNIT.sub("", _SIZES.sub("", _FRACTIONS.sub(r"\\frac", text)))
    text = _PLAIN_UNIT.sub("", _FONTS.sub(r"\1", text))
    text = _DEGREES.sub("", text).replace(r"\%", "").replace("%", "")
    text = _SPACES.sub(" ", text).strip()
    text = re.sub(r"(?<![A-Za-z]) | (?![A-Za-z])", "", text)  # a space may end a macro: `\pi r`
    return text.lower() if text.replace(" ", "").isalpha() else text


def _number(text: str) -> float | None:
    bare = _THOUSANDS.sub("", text)
    return float(bare) if _NUMBER.match(bare) else None


def _close(a: complex, b: complex, rounding: float = 0.0) -> bool:
    return cmath.isclose(a, b, rel_tol=TOLERANCE, abs_tol=0.0 if a and b else rounding)


def _items(text: str) -> list[str]:
    """The elements of `(a,b)`, `[a,b)`, `\\{a,b\\}` or `a,b`; a single one if no comma stands outside brackets."""
    for opening, closing in ((r"\{", r"\}"), ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")")):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and (found := at_commas(inner)):
            return found
    return at_commas(text)


def at_commas(text: str) -> list[str]:
    """Cut at commas outside brackets; nothing if the brackets do not balance."""
    items, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return []
        if char == "," and depth == 0:
            items.append(text[start:place])
            start = place + 1
    return [] if depth else [*items, text[start:]]


def _items_equal(ours: list[str], theirs: list[str], depth: int) -> bool:
    """In order: this grader takes sets as they are written."""
    if len(ours) != len(theirs) or len(ours) > MAX_ITEMS:
        return False
    return all(second_equal(a, b, depth + 1) for a, b in zip(ours, theirs))


def _rows(text: str) -> list[list[str]]:
    """The rows of a matrix; nothing for anything else."""
    match = _MATRIX.match(text)
    if match is None:
        return []
    return [row.split("&") for row in match[2].split(r"\\") if row]


def _unbracketed(one: str, two: str) -> tuple[str, str] | None:
    """The two without brackets around the whole of either, or None if neither has any."""
    bare = [t[1:-1] if t[:1] + t[-1:] in ("()", "[]", "{}") and at_commas(t[1:-1]) else t for t in (one, two)]
    return None if bare == [one, two] else (bare[0], bare[1])


def _same_equation(one: str, two: str, depth: int) -> bool:
    """`x=5` is 5; two equations are the same if their sides differ by the same, or by the opposite."""
    ours, theirs = one.split("="), two.split("=")
    if len(ours) == len(theirs) == 2:
        if ours[0] == theirs[0]:
            return second_equal(ours[1], theirs[1], depth + 1)
        left, right = (f"({a})-({b})" for a, b in (ours, theirs))
        return _same_value(left, right) or _same_value(left, f"-({right})")
    if len(ours) == 2 and len(theirs) == 1 and len(ours[0]) <= 2:
        return second_equal(ours[1], two, depth + 1)
    if len(theirs) == 2 and len(ours) == 1 and len(theirs[0]) <= 2:
        return second_equal(one, theirs[1], depth + 1)
    return False


def _same_value(one: str, two: str) -> bool:
    try:
        # sin(pi) is 0 but for rounding; 1e-13 is another number than 0
        return all(_close(a, b, 1e-14) for a, b in zip(_values(one), _values(two), strict=True))
    except Unreadable:
        return False


def _values(text: str) -> list[complex]:
    number = _number(text)  # `1.6e-19` is no expression
    return values(text) if number is None else [complex(number)] * POINTS
