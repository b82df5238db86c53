"""How many traces each student learned from: an unfair comparison should be seen before its numbers are believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Sizes = dict[str, list[list[int]]]  # arm -> [traces, distinct problems] of each seed


def of_lab(found: dict[str, Any]) -> Sizes:
    """The sizes of a trace lab's sets, of one seed."""
    return {name: [[study["traces"], study["problems"]]] for name, study in found["sets"].items()}


def of_seeds(reports: Sequence[dict[str, Any]]) -> Sizes:
    """Several seeds' sizes, of the arms that each of them has."""
    found = [report.get("trace_sizes", {}) for report in reports]
    return {arm: [pair for sizes in found for pair in sizes[arm]] for arm in found[0] if all(arm in s for s in found)}


def cell(pairs: list[list[int]]) -> str:
    """ "400 (398)": traces and their distinct problems, each from the smallest seed to the largest."""
    traces, problems = (_span(column) for column in zip(*pairs, strict=True))
    return f"{traces} ({problems})"


def unequal(sizes: Sizes) -> str:
    """A sentence that names the students who learned from fewer traces than others of their seed; "" for none."""
    traces = {arm: [count for count, _ in pairs] for arm, pairs in sizes.items()}
    most = [max(column) for column in zip(*traces.values(), strict=True)]
    fewer = [f"{arm} from {_span(counts)}" for arm, counts in traces.items() if counts != most]
    if not fewer:
        return ""
    return f"Students did not learn from equally many traces: {', '.join(fewer)}, the others from {_span(most)}."


def _span(values: Sequence[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
