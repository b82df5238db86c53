r"""Equality of two expressions by math-verify. Runs in a worker process only: it can hang or eat all memory.

math-verify's own timeouts stay off (they use SIGALRM); the pool's parent keeps the deadline.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

from w2sr_jax.grading.normal import is_no_unit, unwrap_text

_BARE_MACROS = re.compile(
    r"(?<![A-Za-z\\])(pi|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|exp|theta|alpha|beta)(?![A-Za-z])"
)
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])")
_SQRT = re.compile(r"(?<![A-Za-z\\])sqrt\s*(\((?:[^()]|\([^()]*\))*\))")
# `2/3\pi` is 2/3 of pi: math-verify divides by all that stands behind the slash. Not in `x^1/2` or `a/2/3`.
_SLASH = re.compile(r"(?<![\w.})\]^/])(\d+)/(\d+)(?=\s*(?:\\[A-Za-z]|[A-Za-z(]))")
# math-verify reads `E_1` as the number e with an index, which it cannot, and `I_1` as the imaginary unit
_INDEXED_CONSTANT = re.compile(r"(?<![\\A-Za-z])([EIe])(?=_)")
_EXPONENT = re.compile(r"\^(-?\d{2,}|-\d)(?![\d.])")
_EXPONENT_GROUP = re.compile(r"\^\(((?:[^()]|\([^()]*\))*)\)")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w.])")
# Where i counts something, or is a direction: the index of a variable, a sum, a unit vector
_NO_IMAGINARY = re.compile(
    r"_\s*(?:i(?![A-Za-z])|\{[^{}]*(?<![\\A-Za-z])i(?![A-Za-z]))|\\(?:sum|prod|mathbf|boldsymbol|vec|hat)(?![A-Za-z])"
)
_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}")
# `\text{ cm}` or `\mathrm{m}/\mathrm{s}^2` after an expression; not the imaginary unit or e in roman type
_TRAILING_UNIT = re.compile(
    r"(?<=[\w})!])\s*(?:\\(?:text|mathrm|mbox)\s*\{(?!\s*[ie]\s*\})[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?[\s/]*)+$"
)


def math_verify_equal(given: str, gold: str) -> bool:
    """Whether math-verify finds the cleaned answers equal, and its rounding did not make them so."""
    from math_verify import verify

    if _magnitude(given) != _magnitude(gold):  # math-verify drops the words: `5\text{ million}` would be 5
        return False
    ours, theirs = parse(given), parse(gold)
    if not ours or not theirs:
        return False
    if not verify(theirs, ours, strict=True, allow_set_relation_comp=True, timeout_seconds=None):
        if _symbol_equals(ours[0], theirs[0]):
            return True
        return not _NO_IMAGINARY.search(given + " " + gold) and _equal_as_complex(ours[0], theirs[0])
    return "%" in given + gold or _close(ours[0], theirs[0])


def parse(text: str) -> list[Any]:
    """math-verify's reading: [sympy expression, normalised text], or only the text where it cannot be parsed."""
    from math_verify import parse as parse_math

    # Always inside a box, and never its other readings, which pick one number out of what they cannot parse.
    return parse_math("\\boxed{" + to_latex(text) + "}", _targets(), parsing_timeout=None)


@functools.cache
def _targets() -> tuple[Any, ...]:
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # "Timeout is disabled": it is, on purpose
    # units=False: it reads the `ab` of 5ab as a unit; `_TRAILING_UNIT` removes those that are marked as text.
    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    # Without try_extract_without_anchor=False it takes 2/3 for a whole answer that holds \frac{2}{3}.
    return (LatexExtractionConfig(normalization_config=normalization, try_extract_without_anchor=False),)


def _magnitude(text: str) -> str:
    """The words at the end of an answer that are no unit but change its value; nothing where there are none."""
    match = _TRAILING_UNIT.search(text)
    words = " ".join(unwrap_text(match[0]).split()) if match else ""
    return words if is_no_unit(words) else ""


def to_latex(text: str) -> str:
    r"""Plain-text mathematics as LaTeX: `pi/2`, `sqrt(3)`, `2**10`, `x^10`, `1.6e-19`, `<=`, `oo`."""
    text = _TRAILING_UNIT.sub("", text)
    protected = _TEXT.findall(text)
    text = _TEXT.sub("\x00", text)
    text = text.replace("**", "^").replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
    for _ in range(4):  # nested roots
        text, changed = _SQRT.subn(lambda m: r"\sqrt{" + m.group(1)[1:-1] + "}", text)
        if not changed:
            break
    text = _EXPONENT_GROUP.sub(r"^{\1}", text)
    text = _EXPONENT.sub(r"^{\1}", text)
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = _INFINITY.sub(r"\\infty ", text)
    text = _BARE_MACROS.sub(r"\\\1 ", text)
    text = _INDEXED_CONSTANT.sub(r"\\mathcal{\1}", text)
    text = _SLASH.sub(r" \\frac{\1}{\2}", text)
    for original in protected:
        text = text.replace("\x00", original, 1)
    return text


def _symbol_equals(a: Any, b: Any) -> bool:
    """math-verify compares a lone symbol with an expression by their spelling only: x with x/2+x/2."""
    from sympy import Expr, Symbol, simplify

    if not (isinstance(a, Symbol) or isinstance(b, Symbol)) or not (isinstance(a, Expr) and isinstance(b, Expr)):
        return False
    return simplify(a.doit() - b.doit()) == 0


def _equal_as_complex(a: Any, b: Any) -> bool:
    """Whether they are equal once i, a variable like any other to math-verify, is the imaginary unit."""
    from sympy import Expr, I, Rational, Symbol, expand, simplify

    if not (isinstance(a, Expr) and isinstance(b, Expr)):
        return False
    symbols = a.free_symbols | b.free_symbols
    if not any(symbol.name == "i" for symbol in symbols):
        return False
    # math-verify calls the other variables real in one text and not real in the next
    named = {s: I if s.name == "i" else Symbol(s.name, real=True) for s in symbols}
    difference = (a.xreplace(named) - b.xreplace(named)).doit()
    point = {s: Rational(7 + n, 5) for n, s in enumerate(sorted(difference.free_symbols, key=str))}
    try:  # most are far apart at one point already, and need no algebra
        if abs(complex(difference.subs(point).evalf(15))) > 1e-9:
            return False
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return False
    return bool(simplify(expand(difference, complex=True)) == 0)


def _close(a: Any, b: Any) -> bool:
    """False if both are real numbers that differ by more than 0.1 %: math-verify rounds to six decimals, 1e-8 to 0."""
    from sympy import Expr

    if not (isinstance(a, Expr) and isinstance(b, Expr) and a.is_number and b.is_number):
        return True
    if a == b:
        return True
    try:
        x, y = complex(a.doit().evalf(15)), complex(b.doit().evalf(15))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return True
    return abs(x - y) <= 1e-3 * max(abs(x), abs(y))
