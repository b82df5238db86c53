"""Reads what the TPU compiler says when a program does not fit."""

from __future__ import annotations

import dataclasses
import re

UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = r"([\d.]+)([KMGT]?)B?"


@dataclasses.dataclass(frozen=True, slots=True)
class Overflow:
    """Bytes on one chip. Where the compiler gave up early, what is used is a lower bound."""

    used: int
    available: int
    arguments: int | None
    code: int | None
    is_lower_bound: bool
    largest: tuple[str, ...]  # the biggest buffers: size, shape, the operation they come from


def read_overflow(message: str) -> Overflow | None:
    """The numbers in a CompileTimeHbmOom, None where the message has another form."""
    used = re.search(rf"Used {_SIZE} of {_SIZE} hbm", message)
    if used:
        return Overflow(
            size(used[1], used[2]),
            size(used[3], used[4]),
            _named("arguments", message),
            _named("overlays", message),
            False,
            _largest(message),
        )
    early = re.search(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)", message)
    if early:
        return Overflow(size(early[1], early[2]), size(early[3], early[4]), None, None, True, _largest(message))
    return None


def size(number: str, unit: str) -> int:
    """Bytes of "15.75", "G"."""
    return int(float(number) * UNITS[unit])


def _named(name: str, message: str) -> int | None:
    found = re.search(rf"^\s+{name}\s+{_SIZE}", message, re.MULTILINE)
    return size(found[1], found[2]) if found else None


def _largest(message: str, count: int = 3) -> tuple[str, ...]:
    found = []
    for block in re.split(r"^\s+\d+\. Size: ", message, flags=re.MULTILINE)[1 : count + 1]:
        operator = re.search(r'op_name="([^"]*)"', block)
        shape = re.search(r"Shape: (\w+\[[\d,]*\])", block)
        where = "/".join(operator[1].split("/")[-2:]) if operator else "a copy or an argument"
        found.append(f"{block.split()[0]} {shape[1] if shape else ''} {where}".replace("  ", " "))
    return tuple(found)
