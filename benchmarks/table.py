"""What every benchmark prints: rows of ours, peer and their ratio, from one run on one machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison; the ratio is above 1 where ours is better, whichever way the unit points.

    Args:
        what: the quantity and the workload.
        ours, peer: medians of the counted runs.
        unit: with "/s" at its end higher is better, otherwise lower.
        runs: how many runs were counted.
    """

    what: str
    ours: float
    peer: float
    unit: str
    runs: int

    @property
    def ratio(self) -> float:
        return self.ours / self.peer if self.unit.endswith("/s") else self.peer / self.ours


def row(what: str, ours: Sequence[float], peer: Sequence[float], unit: str) -> Row:
    """Medians of both sides' runs."""
    return Row(
        what=what, ours=statistics.median(ours), peer=statistics.median(peer), unit=unit, runs=min(len(ours), len(peer))
    )


def machine() -> str:
    """What the figures belong to."""
    model = ""
    if (info := Path("/proc/cpuinfo")).exists():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
    return f"{len(os.sched_getaffinity(0))} cores, {model or platform.processor() or platform.machine()}"


def show(rows: Sequence[Row], peer: str) -> None:
    """Prints a Markdown table, then the same as JSON lines."""
    print(f"\nmachine: {machine()}; peer: {peer}; medians; a ratio above 1 is better for us\n")
    print("| what | ours | peer | unit | ratio | runs |")
    print("|---|---|---|---|---|---|")
    for one in rows:
        print(f"| {one.what} | {one.ours:.4g} | {one.peer:.4g} | {one.unit} | {one.ratio:.2f} | {one.runs} |")
    print()
    for one in rows:
        print(json.dumps(dataclasses.asdict(one) | {"ratio": one.ratio, "machine": machine(), "peer": peer}))
