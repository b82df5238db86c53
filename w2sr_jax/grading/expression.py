r"""A small reader of answers as expressions, and their value at a point: no computer algebra, no process, no recursion
without a bound.

It knows numbers, letters, + - * / ^ ! | |, \frac, \sqrt, \binom, logarithms and trigonometry, with products written
side by side. Whatever else a text holds makes it unreadable: then it has no value, and only equal texts are equal.
"""

from __future__ import annotations

import cmath
import math
import re
import zlib
from collections.abc import Callable

MAX_CHARS, MAX_DEPTH, MAX_EXPONENT, POINTS = 400, 40, 4096, 3
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|\*\*|[A-Za-z]|[-+*/^(){}\[\]|!_])")
_SINGLE = re.compile(r"\s*(\d|\\[A-Za-z]+|[A-Za-z])")  # a macro's argument without braces: \frac12
_ARGUMENT = re.compile(r"\(\s*([A-Za-z]|\d{1,9})\s*\)")
_WORDS = re.compile(r"(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp)(?![A-Za-z])")
_OPEN = {"(": ")", "{": "}", "[": "]"}
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda z: 1 / cmath.tan(z),
    "sec": lambda z: 1 / cmath.cos(z),
    "csc": lambda z: 1 / cmath.sin(z),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "ln": cmath.log,
    "exp": cmath.exp,
}
_CONSTANTS = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_GREEK = re.compile(r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|psi|omega)")


class Unreadable(Exception):
    """The text is no expression that this reader knows, or it has no finite value."""


def values(text: str) -> list[complex]:
    """The expression's value at POINTS points, at which every variable has a fixed value that its name decides.

    Raises:
        Unreadable: see above; nothing else is raised.
    """
    if len(text) > MAX_CHARS:
        raise Unreadable
    try:
        found = [_Reader(_WORDS.sub(r"\\\1 ", text), point).whole() for point in range(POINTS)]
    except (OverflowError, ZeroDivisionError, ValueError, RecursionError):
        raise Unreadable from None
    if not all(cmath.isfinite(value) for value in found):
        raise Unreadable
    return found


def _variable(name: str, point: int) -> complex:
    """Between 0.3 and 2.3: positive, so that roots and logarithms of variables stay on one branch."""
    return complex(0.3 + 2 * zlib.crc32(f"{name}:{point}".encode()) / 2**32)


class _Reader:
    """Recursive descent over the text, evaluating as it goes."""

    def __init__(self, text: str, point: int):
        self.text, self.point, self.at, self.depth = text, point, 0, 0

    def peek(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        return match[1] if match else ""

    def take(self, wanted: str = "") -> str:
        match = _TOKEN.match(self.text, self.at)
        if match is None or (wanted and match[1] != wanted):
            raise Unreadable
        self.at = match.end()
        return match[1]

    def whole(self) -> complex:
        value = self.sum()
        if self.text[self.at :].strip():
            raise Unreadable
        return value

    def sum(self) -> complex:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        self.depth -= 1
        return value

    def product(self) -> complex:
        value = self.signed()
        while token := self.peek():
            if token in ("*", r"\cdot", r"\times"):
                self.take()
                value *= self.signed()
            elif token in ("/", r"\div"):
                self.take()
                value /= self.signed()
            elif token[0].isdigit() or token[0] in r".\({[" or token[0].isalpha():
                value *= self.power()
            else:
                break
        return value

    def signed(self) -> complex:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return sign * self.power()

    def power(self) -> complex:
        base = self.postfix()
        if self.peek() in ("^", "**"):
            self.take()
            exponent = self.signed()
            if abs(exponent) > MAX_EXPONENT:
                raise Unreadable
            return base**exponent
        return base

    def postfix(self) -> complex:
        value = self.atom()
        while self.peek() == "!":
            self.take()
            if value.imag or value.real != int(value.real) or not 0 <= value.real <= 170:
                raise Unreadable
            value = complex(math.factorial(int(value.real)))
        return value

    def atom(self) -> complex:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return self.mixed(float(token)) if token.isdigit() else complex(float(token))
        if token in _OPEN:
            return self.inside(_OPEN[token])
        if token == "|":
            return complex(abs(self.inside("|")))
        if token.isalpha() or _GREEK.fullmatch(token):
            return self.named(token)
        name = token.removeprefix("\\")
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name == "frac":
            return self.argument() / self.argument()
        if name == "binom":
            top, bottom = self.argument(), self.argument()
            return complex(math.comb(_count(top), _count(bottom)))
        if name == "sqrt":
            return self.root()
        if name == "log" or name in _FUNCTIONS:
            return self.function(name)
        raise Unreadable

    def inside(self, closing: str) -> complex:
        value = self.sum()
        self.take(closing)
        return value

    def mixed(self, whole: float) -> complex:
        r"""`1\frac{2}{3}` is 1 + 2/3, as school answers write it."""
        match = re.compile(r"\s*\\frac\s*\{\s*(\d{1,9})\s*\}\s*\{\s*(\d{1,9})\s*\}").match(self.text, self.at)
        if match and 0 < int(match[1]) < int(match[2]):
            self.at = match.end()
            return complex(whole + int(match[1]) / int(match[2]))
        return complex(whole)

    def named(self, token: str) -> complex:
        if self.peek() == "_":
            self.take()
            match = re.compile(r"\s*(\{[^{}]{0,20}\}|[A-Za-z0-9])").match(self.text, self.at)
            if match is None:
                raise Unreadable
            self.at = match.end()
            return _variable(f"{token}_{match[1].strip('{} ')}", self.point)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if argument := _ARGUMENT.match(self.text, self.at):  # `I(0)` is a value of I, not I times 0
            self.at = argument.end()
            return _variable(f"{token}({argument[1]})", self.point)
        return _variable(token, self.point)

    def argument(self) -> complex:
        """What a macro takes: a group in braces, or one digit, letter or macro."""
        if self.peek() == "{":
            self.take()
            return self.inside("}")
        match = _SINGLE.match(self.text, self.at)
        if match is None:
            raise Unreadable
        if match[1].isdigit():
            self.at = match.end()
            return complex(int(match[1]))
        return self.atom()

    def root(self) -> complex:
        degree = 2.0 + 0j
        if self.peek() == "[":
            self.take()
            degree = self.inside("]")
        if self.peek() == "(":
            self.take()
            value = self.inside(")")
        else:
            value = self.argument()
        if degree == 3 and not value.imag and value.real < 0:
            return complex(-((-value.real) ** (1 / 3)))  # the real root, which is what is meant
        return value ** (1 / degree)

    def function(self, name: str) -> complex:
        base, exponent = 10.0 + 0j, 1.0 + 0j
        for _ in range(2):
            if name == "log" and self.peek() == "_":
                self.take()
                base = self.argument()
            elif self.peek() == "^":
                self.take()
                exponent = self.signed()
        if exponent == -1 and f"arc{name}" in _FUNCTIONS:
            name, exponent = f"arc{name}", 1.0 + 0j
        value = self.power()
        while (token := self.peek()) and (token[0].isdigit() or token.isalpha() or token == r"\pi"):  # sin 2x
            value *= self.power()
        found = cmath.log(value) / cmath.log(base) if name == "log" else _FUNCTIONS[name](value)
        return found**exponent


def _count(value: complex) -> int:
    if value.imag or value.real != int(value.real) or not 0 <= value.real <= 1000:
        raise Unreadable
    return int(value.real)
