r"""Whether two answers say the same: structure here, single expressions by `leaf` (math-verify, see symbolic.py).

Lists, tuples, sets and intervals are taken apart and compared element by element, and `name = value` is reduced to
its value, before any computer algebra sees them. That decides most answers exactly and cheaply, and it closes the
holes that math-verify has on whole answers: an equation graded by its right-hand side (`3x-y+13=0` as 0), absolute
rounding (1e-8 as 0), a subscript base that is dropped (`52_8` as 52_9).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

from w2sr_jax.grading.normal import clean, is_word, key, plain_number, units_agree

Leaf = Callable[[str, str], bool]

MAX_DEPTH, MAX_ITEMS = 12, 64
_AND = re.compile(r",?\s*\\text\s*\{[\s,]*(?:and|or)\s*\}\s*|,?\s+(?:and|or)\s+|;")
_OR = re.compile(r",?\s*\\text\s*\{[\s,]*or\s*\}\s*|,?\s+or\s+|\\(?:cup|lor)(?![A-Za-z])")
_BOTH = re.compile(
    r"([A-Za-z])\s*(<|>|\\[lg]e(?![A-Za-z]))([^<>=,]+?)(?:\\text\s*\{\s*and\s*\}|\sand\s)"
    r"\s*\1\s*(<|>|\\[lg]e(?![A-Za-z]))([^<>=,]+)"
)
_SIGNS = re.compile(r"\\([pm])[pm](?![A-Za-z])")
_RELATION = re.compile(r"(?<![<>!:\\=])=(?!=)|\\in(?![A-Za-z])|\\approx(?![A-Za-z])")
_ZEROS_GROUP = re.compile(r",0\d")
_SUBSCRIPT = re.compile(r"_\s*(?:\{[^{}]*\}|\\?[A-Za-z0-9]+)|'")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w{1,9}\}?)?")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_ARGUMENTS = re.compile(r"\([^()]*\)")
_BASE = re.compile(r"^(-?[0-9A-Z.]+)_\s*\{?\s*(?:\\text\s*\{[^{}]*\})?\s*(\d+|\\text\{[a-z ]+\})\s*\}?$")
_TOWER = re.compile(r"(?:\d+(?:\*\*|\^)[({]*-?){3,}\d+")


def equivalent(given: str, gold: str, leaf: Leaf, depth: int = 0) -> bool:
    """Whether `given` answers what `gold` answers.

    Args:
        leaf: decides two expressions that neither exact comparison nor structure decides; may raise.
    """
    verdict = compare_exactly(given, gold)
    if verdict is not None or depth >= MAX_DEPTH:
        return bool(verdict)
    given, gold = clean(given), clean(gold)
    if (r"\cup" in given) != (r"\cup" in gold) and (ours := _alternatives(given)) and (theirs := _alternatives(gold)):
        return len(ours) == len(theirs) <= MAX_ITEMS and _sets_equal(ours, theirs, leaf, depth + 1)
    name, sign, number = given.rpartition("=")
    if sign and "," not in name and plain_number(number) and _is_name([name, number]) and compare_exactly(number, gold):
        return True  # `x = 10,080` is no list
    given_list, gold_list = _items(given), _items(gold)
    if (chain := _between(given)) and not (gold_list and gold_list[0] == ""):
        return equivalent(chain, gold, leaf, depth + 1)
    if given_list and gold_list:
        return _lists_equal(given_list, gold_list, leaf, depth + 1)
    if (given_list and plain_number(gold)) or (gold_list and plain_number(given)):
        return False
    given_sides, gold_sides = _sides(given), _sides(gold)
    if given_list or gold_list or (len(given_sides) == 1 and len(gold_sides) == 1):
        return leaf(given, gold)
    if len(gold_sides) == 1:
        if _is_name(given_sides):
            return equivalent(given_sides[-1], gold, leaf, depth + 1)
        return all(equivalent(side, gold, leaf, depth + 1) for side in given_sides)
    if len(given_sides) == 1:
        return _is_name(gold_sides) and equivalent(given, gold_sides[-1], leaf, depth + 1)
    if key(given_sides[0]) == key(gold_sides[0]) and _is_name(gold_sides):
        return equivalent(given_sides[-1], gold_sides[-1], leaf, depth + 1)
    return leaf(given, gold)


def compare_exactly(given: str, gold: str) -> bool | None:
    """Decides by normal forms: True or False where that is certain, None where it takes more.

    Numbers: exact fractions; if either is a decimal, agreement to six decimal places and to 0.1 %, so that 0.333333 is
    1/3 but 3e-8 is not 5e-8. A unit may be missing on one side; two different units differ. 5% agrees with 5 and 0.05.
    """
    one, two = key(given), key(gold)
    first, second = plain_number(given), plain_number(gold)
    same_unit = not (first and second) or units_agree(first.unit, second.unit)
    if one == two and same_unit:
        return bool(one)
    if first and second:
        if same_unit:
            values = [(first.value, second.value)]
            if first.unit == "%" and second.unit == "":
                values.append((first.value / 100, second.value))
            if second.unit == "%" and first.unit == "":
                values.append((first.value, second.value / 100))
            if any(numbers_agree(a, b, exact=not (first.decimal or second.decimal)) for a, b in values):
                return True
        # `100,200` may also be a list; the structural comparison decides that.
        return None if "," in one and "," in two else False
    if is_word(one) and is_word(two):
        return one.lower() == two.lower()
    first_base, second_base = _BASE.match(one), _BASE.match(two)
    if first_base and second_base:
        return first_base.groups() == second_base.groups()
    return None


def numbers_agree(a: Fraction, b: Fraction, exact: bool) -> bool:
    """Equal; or, for rounded numbers, equal to six decimals and to a relative 0.1 %."""
    if a == b:
        return True
    return not exact and abs(a - b) <= max(abs(a), abs(b)) / 1000 and round(a, 6) == round(b, 6)


def is_astronomical(text: str) -> bool:
    """A tower of literal powers (`9**9**9**9`) whose value no computer holds: refused before anything evaluates it."""
    tower = _TOWER.search(text.replace(" ", ""))
    if tower is None:
        return False
    exponent = 1
    for number in reversed(re.findall(r"\d+", tower.group())[1:]):
        if int(number[:9]) > 1 and exponent * math.log10(int(number[:9])) > 6:
            return True
        exponent = int(number[:9]) ** exponent
    return exponent > 100_000


def _items(text: str) -> tuple[str, list[str]] | None:
    """The parts of a list; `10,080` is none, while `100,200` may be one."""
    return None if _ZEROS_GROUP.search(text) and plain_number(text) else _split(text)


def _split(text: str) -> tuple[str, list[str]] | None:
    r"""(brackets, items) of `(a,b)`, `[a,b)`, `\{a,b\}` or `a,b`; None if there is no comma between items."""
    text = _AND.sub(",", text)
    inner, brackets = text, ""
    for opening, closings in ((r"\{", (r"\}",)), ("(", (")", "]")), ("[", (")", "]")), (r"\langle", (r"\rangle",))):
        for closing in closings:
            if text.startswith(opening) and text.endswith(closing):
                inside = text[len(opening) : -len(closing)]
                if _top_level(inside) is not None:
                    inner, brackets = inside, opening + closing
    items = _top_level(inner)
    if items is None or len(items) < 2:
        return None
    return brackets, items


def _top_level(text: str) -> list[str] | None:
    """The text cut at commas outside all brackets; None if brackets do not balance."""
    items, depth, start = [], 0, 0
    for position, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif char == "," and depth == 0:
            items.append(text[start:position].strip())
            start = position + 1
    if depth:
        return None
    return [*items, text[start:].strip()]


def _alternatives(text: str) -> list[str] | None:
    r"""The parts of `A or B` and of `A \cup B`, which say the same: `x<1 or x>2`; None where there is just one."""
    parts = [part.strip() for part in _OR.split(text)]
    whole = all(sum(map(part.count, "([{")) == sum(map(part.count, ")]}")) for part in parts)
    return parts if len(parts) > 1 and whole and all(parts) else None


def _between(text: str) -> str | None:
    """`3<x<5` for `x<5 and x>3`; None for anything else, and for two bounds of one kind."""
    match = _BOTH.fullmatch(text)
    if match is None:
        return None
    bounds = {sign.lstrip("\\")[0]: (sign, bound.strip()) for sign, bound in (match.group(2, 3), match.group(4, 5))}
    low = bounds.get(">") or bounds.get("g")
    high = bounds.get("<") or bounds.get("l")
    if low is None or high is None:
        return None
    below = low[0].replace(">", "<").replace("ge", "le")
    return f"{low[1]} {below} {match[1]} {high[0]} {high[1]}"


def _both_signs(items: list[str]) -> list[str]:
    r"""The items, two for each that holds `\pm`: upper signs, lower signs."""
    found: list[str] = []
    for item in items:
        upper = _SIGNS.sub(lambda match: "+-"[match[1] == "m"], item)
        lower = _SIGNS.sub(lambda match: "-+"[match[1] == "m"], item)
        found += [upper] if upper == lower else [upper, lower]
    return found


def _lists_equal(given: tuple[str, list[str]], gold: tuple[str, list[str]], leaf: Leaf, depth: int) -> bool:
    (given_brackets, ours), (gold_brackets, theirs) = given, gold
    unordered = {given_brackets, gold_brackets} <= {r"\{\}", ""}
    if unordered:
        ours, theirs = _both_signs(ours), _both_signs(theirs)
    if len(ours) != len(theirs) or len(ours) > MAX_ITEMS:
        return False
    if unordered:
        return _sets_equal(ours, theirs, leaf, depth)
    # A tuple may be written without its parentheses, nothing else changes its brackets.
    if given_brackets != gold_brackets and {given_brackets, gold_brackets} != {"", "()"}:
        return False
    return all(equivalent(a, b, leaf, depth) for a, b in zip(ours, theirs))


def _sets_equal(ours: list[str], theirs: list[str], leaf: Leaf, depth: int) -> bool:
    rest: list[str] = []
    left = list(theirs)
    for item in ours:  # exact matches first: they cost nothing
        match = next((other for other in left if compare_exactly(item, other)), None)
        if match is None:
            rest.append(item)
        else:
            left.remove(match)
    for item in rest:
        match = next((other for other in left if equivalent(item, other, leaf, depth)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _sides(text: str) -> list[str]:
    """The sides of an equation chain, or of `x in S`; one item if there is no such sign outside brackets."""
    sides, start = [], 0
    for match in _RELATION.finditer(text):
        before = text[: match.start()]
        if all(before.count(a) == before.count(b) for a, b in ("()", "{}")):
            sides.append(text[start : match.start()].strip())
            start = match.end()
    sides.append(text[start:].strip())
    if len(sides) == 2 and "=" in text and _VARIABLE.fullmatch(sides[1]) and not _LETTER.search(sides[0]):
        sides.reverse()  # `5=x`
    return sides if all(sides) else [text]


def _is_name(sides: list[str]) -> bool:
    r"""Whether the left side only names what the right side gives: `x`, `f(2)`, `S_{10}`, `AB`, `x+y`; not `3x-y+13`.

    A sum that equals 0 is the equation of something, not a quantity that is 0.
    """
    left = _ARGUMENTS.sub("", _SUBSCRIPT.sub("", sides[0]))
    if re.search(r"[0-9*]", left) or not re.search(r"[A-Za-z]", left):
        return False
    return not (re.search(r"[+-]", left) and key(sides[-1]) == "0")
