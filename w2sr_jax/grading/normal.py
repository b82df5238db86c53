r"""Normal forms of an answer: what can be compared exactly, without a computer algebra system.

`clean` removes what carries no meaning in LaTeX, `key` is the string that equal answers share, and `plain_number`
reads integers, decimals, fractions, mixed numbers and scientific notation as exact fractions, with their unit.
Every pattern here is linear in the length of the text, which the caller bounds.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from fractions import Fraction

_UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
     "≥": r"\ge ", "∪": r"\cup ", "∈": r"\in ", "°": r"^\circ ", "√": r"\sqrt ", "±": r"\pm ", "≠": r"\ne ",
     "²": "^2", "³": "^3", "≈": r"\approx ", "½": r"\frac{1}{2}", "，": ",", "％": "%", "\u00a0": " ", "\u202f": " "}
)  # fmt: skip
_FUNCTIONS = "arcsin|arccos|arctan|sin|cos|tan|cot|csc|sinh|cosh|tanh|ln|log|exp"  # not sec, a unit
_REPLACE = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])"), ""),
    (re.compile(r"(?<!\\)\\[!,()\[\]]"), ""),  # not the row separator in `\\[`
    (re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]"), r"\\\\ "),  # `\\[4pt]` ends a row, too
    (re.compile(r"(?<!\\)\\[;: ]|\\q?quad(?![A-Za-z])|~"), " "),
    (re.compile(r"(?<!\\)\$"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])"), r"^\\circ "),
    (re.compile(r"\\(?:leq|leqslant)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(rf"\\(?:mathrm|operatorname|text)\s*\{{\s*({_FUNCTIONS})\s*\}}(?=\s*\S)"), r"\\\1 "),
]
_TEXT = re.compile(
    r"\\(?:text|mathrm|mbox|hbox|textbf|textit|textrm|texttt|mathbf|mathit|mathsf|operatorname)\*?\s*\{([^{}]*)\}"
)
# Numbers in bold, whose spaces were put there by scanning: `\mathbf{3 4 3}`, `\mathbf{- 3 , - 2 8}`, `\mathbf{7 \pi}`.
_BOLD_NUMBERS = re.compile(r"\\(?:mathbf|textbf|boldsymbol|bm)\s*\{((?:[\d\s.,+/^-]|\\pi(?![A-Za-z]))+)\}")
# A number with its unit inside one macro: `\text{18 dollars}`, `\textbf{3/4}`, `\underline{18}`.
_WRAPPED_NUMBER = re.compile(
    r"\\(?:text|mathrm|mbox|hbox|textbf|textit|textrm|mathbf|mathit|underline)\s*"
    r"\{\s*([-+]?(?:\\\$|[€£])?[\d.,/]*\d\\?%?)([\s,][^{}]*)?\}"
)
_LONE_NUMBER = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\(\s*(-?\d+(?:\.\d+)?)\s*\)\}?")
_DROP_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # "1 2" must not become "12"
_CHOICE = re.compile(r"^\(?([A-H])[).]?$")

_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|[1-9]\d{0,2}(?:[ ]\d{3})+(?![\d/])|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"""(?P<sign>[+-]?)\s*(?P<money>\\\$|[€£])?\s*(?:
      (?P<start>\d*\.\d*)\\(?:overline|bar)\s*\{{?\s*(?P<period>\d+)\s*\}}?
    | (?P<whole>\d+)(?:\s*\\frac\s*\{{(?P<mtop>\d+)\}}\s*\{{(?P<mbot>\d+)\}}|\s+(?P<mtop2>\d+)/(?P<mbot2>\d+))
    | \\frac\s*(?:\{{\s*(?P<fsign>-?)\s*(?P<top>\d+)\s*\}}|(?P<top1>\d))\s*(?:\{{\s*(?P<bot>\d+)\s*\}}|(?P<bot1>\d))
    | 10\s*(?:\^|\*\*)\s*\{{?\s*(?P<ten>[+-]?\d{{1,3}})\s*\}}?
    | (?P<num>{_DIGITS})(?:\s*/\s*(?P<den>\d+(?:\.\d+)?))?
      (?:[eE](?P<e>[+-]?\d{{1,3}})|\s*(?:\\times|\\cdot|\*)\s*10\s*(?:\^|\*\*)\s*\{{?\s*(?P<p>[+-]?\d{{1,3}})\s*\}}?)?
    )""",
    re.VERBOSE,
)
_PERCENT = re.compile(r"^(?:\\?%|percent)$", re.IGNORECASE)
_UNIT_POWER = re.compile(r"\^\s*\{?-?\d\}?")
_UNIT = re.compile(r"^[A-Za-zµμ.\s/-]+$")
_SHORT_UNITS = re.compile(r"^(?:cm|mm|km|kg|mg|m[lL]|k?Hz|[kM]?eV|ms|ft|in|lb|oz|hr|am|pm|nm|mi|ns|k[JWVN])$")
_LETTER_UNITS = frozenset("mgsNJKVWALhCFT")
_CASED_UNITS = re.compile(r"[mM](?:Wh?|Hz|e?V|J|N|Pa|A)")  # milli and mega
_SPELLED_UNITS = {
    "meter": "m", "metre": "m", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "kilometer": "km",
    "kilometre": "km", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "gram": "g",
    "kilogram": "kg", "inche": "in", "inch": "in", "foot": "ft", "feet": "ft", "mile": "mi", "pound": "lb", "per": "/"
}  # fmt: skip
_MONEY = frozenset(("$", "€", "£"))
_NOT_UNITS = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|or|and|pi|sqrt|sin|cos|tan|log|ln|exp|mod|times(?!\W*$)|"
    r"infty|to|infinity|base|over|plus|minus|choose|half|halves|"
    r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth)s?)\b"
    r"|^[\s(]*(?:squared|cubed|factorial)\b",
    re.IGNORECASE,
)
MAX_PLAIN_CHARS = 1000


def clean(text: str) -> str:
    """The answer without dollars, spacing and size macros, and with one spelling of what has several."""
    text = text.translate(_UNICODE)
    if "\\" in text or "$" in text or "~" in text or "{" in text:
        for pattern, new in _REPLACE:
            text = pattern.sub(new, text)
        if "bf" in text or r"\b" in text:
            text = _BOLD_NUMBERS.sub(lambda m: re.sub(r"\s+", "", m[1]), text)
    text = text.strip()
    if text.startswith("\\"):
        text = text.removeprefix(r"\approx ").lstrip()
        if wrapped := _WRAPPED_NUMBER.fullmatch(text):
            number, rest = wrapped[1], wrapped[2] or ""
            text = number + (rest if re.search(r"\d", rest) or not rest else rf"\text{{{rest}}}")
    while text[-1:] in (".", ";") and text[-2:] != "..":
        text = text[:-1].rstrip()
    if text.endswith((")", ")}")) and (lone := _LONE_NUMBER.fullmatch(text)):
        return lone[1]
    return text


def unwrap_text(text: str) -> str:
    r"""`\text{cm}` -> `cm`; three levels of nesting are enough."""
    for _ in range(3):
        if "\\" not in text:
            break
        text = _TEXT.sub(r"\1", text)
    return text


@functools.lru_cache(maxsize=4096)
def key(text: str) -> str:
    """The string that trivially equal answers share: no spaces, text macros, dollar, percent or degree signs."""
    text = unwrap_text(clean(text))
    for sign in (r"\$", r"\%", "%", r"^\circ"):
        text = text.replace(sign, "")
    text = _DROP_SPACE.sub("", text)
    if choice := _CHOICE.match(text):
        return choice.group(1)
    return text


def is_word(text: str) -> bool:
    """A word rather than a product of variables: four letters or more (`abc` may be a*b*c)."""
    return len(text) >= 4 and text.isalpha() and text.isascii()


@dataclasses.dataclass(frozen=True, slots=True)
class PlainNumber:
    """An exact number, whether it was written as a decimal, and its unit ('' if none, '%' for a percentage)."""

    value: Fraction
    decimal: bool
    unit: str


@functools.lru_cache(maxsize=4096)
def plain_number(text: str) -> PlainNumber | None:
    """Reads the whole answer as one number with an optional unit; None if it is anything else."""
    if len(text) > MAX_PLAIN_CHARS:
        return None
    text = clean(text)
    match = _NUMBER.match(text)
    if match is None:
        return None
    unit = _unit(text[match.end() :])
    value = _value(match) if unit is not None else None
    if unit is None or value is None:
        return None
    decimal = ("." in match.group() and match["period"] is None) or match["e"] is not None or match["p"] is not None
    return PlainNumber(-value if match["sign"] == "-" else value, decimal, unit or (match["money"] or "").lstrip("\\"))


def _value(match: re.Match[str]) -> Fraction | None:
    def ratio(top: str, bottom: str) -> Fraction | None:
        return None if Fraction(bottom) == 0 else Fraction(top) / Fraction(bottom)

    if match["period"]:
        return _repeating(match["start"], match["period"])
    if match["whole"]:
        part = ratio(match["mtop"] or match["mtop2"], match["mbot"] or match["mbot2"])
        return None if part is None else int(match["whole"]) + part
    if match["top"] or match["top1"]:
        part = ratio(match["top"] or match["top1"], match["bot"] or match["bot1"])
        return -part if part is not None and match["fsign"] else part
    if match["ten"]:
        return Fraction(10) ** int(match["ten"])
    base = ratio(match["num"].replace(",", "").replace(" ", "").rstrip("."), match["den"] or "1")
    exponent = match["e"] or match["p"]
    return base if base is None or not exponent else base * Fraction(10) ** int(exponent)


def _repeating(start: str, period: str) -> Fraction:
    r"""0.1\overline{6}, of which `0.1` is the start."""
    digits = len(start.partition(".")[2])
    return Fraction(f"0{start}0") + Fraction(int(period), (10 ** len(period) - 1) * 10**digits)


def _unit(rest: str) -> str | None:
    """The unit that `rest` spells, '' if it is empty, None if it is not a unit."""
    bare = unwrap_text(rest).strip()
    if not bare:
        return ""
    if _PERCENT.match(bare):
        return "%"
    if bare.lstrip("\\") in _MONEY:
        return bare.lstrip("\\")
    if bare in (r"^\circ", "degrees", "degree"):
        return "degree"
    words = re.findall(r"[A-Za-zµμ]+", bare)
    if len(bare) > 60 or not words or not _UNIT.match(_UNIT_POWER.sub("", bare)) or is_no_unit(bare):
        return None
    macro = rest.lstrip(" /").startswith("\\")
    if not macro and not (rest[:1] == " " and (len(words[0]) >= 3 or _SHORT_UNITS.match(words[0]))):
        return None  # `5xy` and `5 m` may be products
    if len(words[0]) == 1 and words[0] not in _LETTER_UNITS:
        return None  # `5\mathrm{i}`
    spelled = re.sub(r"[A-Za-zµμ]+", lambda word: _spelled(word[0]), bare)
    return re.sub(r"[\s{}]+", "", spelled).rstrip(".")


def _spelled(word: str) -> str:
    """One spelling of a unit: no plural, no capitals but those that tell MW from mW."""
    if not _CASED_UNITS.fullmatch(word):
        word = word.lower()
    if word not in ("s", "ms", "ns", "µs", "μs"):
        word = word.removesuffix("s")
    return _SPELLED_UNITS.get(word, word)


def is_no_unit(text: str) -> bool:
    """Words after a number that change its value: a magnitude, a part, an operation, another number."""
    return bool(_NOT_UNITS.search(text) or re.search(r"(?<![A-Za-z])\d", _UNIT_POWER.sub("", text)))


def units_agree(one: str, two: str) -> bool:
    """The same unit, or one is missing; a dollar sign may stand before any unit but another sign (`\\$18` per day)."""
    if one == two or not (one and two):
        return True
    return (one in _MONEY) != (two in _MONEY) and not {one, two} & {"%", "degree", "cent"}
