"""Rows of ours, peer and their ratio, from one run on one machine: what `w2sr compare` and the benchmarks print."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison; the ratio is above 1 where ours is better, whichever way the unit points.

    Args:
        what: the quantity and the workload.
        ours, peer: medians of the counted runs.
        unit: with "/s" at its end, or "%" of a peak, higher is better; otherwise lower.
        against: who the peer is.
        runs: how many runs were counted.
    """

    what: str
    ours: float
    peer: float
    unit: str
    against: str
    runs: int

    @property
    def ratio(self) -> float:
        higher = self.unit.endswith("/s") or self.unit.startswith("%")
        above, below = (self.ours, self.peer) if higher else (self.peer, self.ours)
        return above / below if below else float("inf")

    def to_json(self) -> dict[str, Any]:
        """The row as compare.json and benchmarks/history.jsonl hold it."""
        return dataclasses.asdict(self) | {"ratio": self.ratio, "machine": machine()}


def row(what: str, ours: Sequence[float], peer: Sequence[float], unit: str, against: str) -> Row:
    """Medians of both sides' runs."""
    middle = statistics.median
    runs = min(len(ours), len(peer))
    return Row(what=what, ours=middle(ours), peer=middle(peer), unit=unit, against=against, runs=runs)


def machine() -> str:
    """What kind of machine the figures belong to: cores and processor, without its name."""
    model = ""
    if (info := Path("/proc/cpuinfo")).exists():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
    return f"{len(os.sched_getaffinity(0))} cores, {model or platform.processor() or platform.machine()}"


def rows_table(rows: Sequence[Row]) -> list[list[str]]:
    """Cells, the head first."""
    head = ["what", "ours", "peer", "unit", "ratio", "against", "runs"]
    return [
        head,
        *(
            [one.what, f"{one.ours:.4g}", f"{one.peer:.4g}", one.unit, f"{one.ratio:.2f}", one.against, str(one.runs)]
            for one in rows
        ),
    ]
