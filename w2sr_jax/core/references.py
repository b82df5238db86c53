"""What the configs of an experiment's nodes read: other nodes, by strings '@NAME/PATH', and files from outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
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


def inputs(value: Any, reads: bool = False) -> Iterator[str]:
    """The strings of a config's `reads` fields (`core.config.opt`), those of nested configs among them.

    Args:
        reads: whether strings of `value` itself are.
    """
    if isinstance(value, str):
        if reads:
            yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from inputs(getattr(value, field.name), bool(field.metadata.get("reads")))
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from inputs(inner, reads)


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
