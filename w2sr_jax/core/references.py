"""Strings '@NAME/PATH' in the configs of an experiment's nodes: which node reads which."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from typing import Any

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import Node


def references(config: Any, names: Collection[str]) -> list[str]:
    """The nodes that a config reads: those of `names` in its strings '@NAME/PATH'."""
    found: dict[str, None] = {}

    def look(value: str) -> str:
        if value.startswith("@"):
            found[split_reference(value, names)[0]] = None
        return value

    map_strings(config, look)
    return list(found)


def split_reference(value: str, names: Collection[str]) -> tuple[str, str]:
    """'@seed0/sft/export' -> ('seed0/sft', 'export'), by the longest node name that it begins with.

    Raises:
        UsageError: no node has such a name.
    """
    parts = value[1:].split("/")
    for end in range(len(parts), 0, -1):
        if (name := "/".join(parts[:end])) in names:
            return name, "/".join(parts[end:])
    raise UsageError(f"experiment: {value!r} refers to no node")


def needed(nodes: Iterable[Node], ends: Collection[str]) -> list[Node]:
    """The nodes that `ends` need, themselves included, in the given order."""
    by_name = {node.name: node for node in nodes}
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += references(by_name[name].config, by_name)
    return [node for node in by_name.values() if node.name in found]


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of nested dataclasses, dicts, tuples and lists with `change` applied to each string value."""
    if isinstance(value, str):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{f.name: map_strings(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        )
    if isinstance(value, dict):
        return {key: map_strings(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_strings(inner, change) for inner in value)
    return value
