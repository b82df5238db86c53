"""Whether a value has a field's annotated type: for configs, and for records as JSON gives them."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any, Literal


def fits(value: Any, kind: Any, *, finite: bool = False) -> bool:
    """Whether `value` is a `kind`; an int is a float here, and a bool is no number.

    Args:
        finite: refuses infinities and NaN.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)

    def all_fit(values: Any, inner: Any) -> bool:
        return all(fits(one, inner, finite=finite) for one in values)

    if kind is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, one, finite=finite) for one in args)
    if origin is Literal:
        return value in args
    if origin is list:
        return isinstance(value, list) and all_fit(value, args[0])
    if origin is tuple:
        if len(args) == 2 and args[1] is ...:
            return isinstance(value, tuple) and all_fit(value, args[0])
        return (
            isinstance(value, tuple)
            and len(value) == len(args)
            and all(fits(one, inner, finite=finite) for one, inner in zip(value, args))
        )
    if origin is dict:
        return isinstance(value, dict) and all_fit(value, args[0]) and all_fit(value.values(), args[1])
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return not finite or abs(value) <= sys.float_info.max  # an int may be larger than any float
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def type_name(kind: Any) -> str:
    """A type as messages name it."""
    plain = isinstance(kind, type) and not typing.get_args(kind)
    return kind.__name__ if plain else str(kind).replace("typing.", "")
