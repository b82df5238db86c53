"""Rows of ours, peer and their ratio, from one run on one machine: what `w2sr compare` and the benchmarks print."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROC_NVIDIA = Path("/proc/driver/nvidia/gpus")


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
    """What kind of machine the figures belong to: cores, processor and accelerators, without its name."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        first = info.read_text().split("\n\n", 1)[0].splitlines()
        found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
        model = found.get("model name", model)
        # Hypervisors may give every generation of a processor one name.
        model += "".join(f", {key} {found[key]}" for key in ("cpu family", "model") if key in found)
    cores = f"{len(os.sched_getaffinity(0))} cores, {model}"
    return ", ".join([cores, *(f"{count} x {kind}" for kind, count in Counter(accelerators(os.environ)).items())])


def accelerators(env: Mapping[str, str]) -> list[str]:
    """The kind of each accelerator that processes with this environment may use; no library is asked, as it claims."""
    if on_cpu(env):
        return []
    tpu = [f"TPU {env['TPU_ACCELERATOR_TYPE']}"] if env.get("TPU_ACCELERATOR_TYPE") else []
    return nvidia_gpus(env) + tpu


def on_cpu(env: Mapping[str, str]) -> bool:
    """Whether JAX is told to take the CPU, whatever else there is."""
    return env.get("JAX_PLATFORMS", "").split(",")[0] == "cpu"


def nvidia_gpus(env: Mapping[str, str], dev: Path = Path("/dev"), proc: Path = PROC_NVIDIA) -> list[str]:
    """The name of each NVIDIA GPU that CUDA_VISIBLE_DEVICES leaves; none where JAX is told to take the CPU."""
    if on_cpu(env):
        return []
    there = sum(path.name.removeprefix("nvidia").isdigit() for path in dev.glob("nvidia*"))
    visible = env.get("CUDA_VISIBLE_DEVICES")
    count = there if visible is None else min(there, len([one for one in visible.split(",") if one.strip()]))
    names = [
        line.split(":", 1)[1].strip()
        for path in sorted(proc.glob("*/information"))
        for line in path.read_text().splitlines()
        if line.startswith("Model:")
    ]
    return (names + ["NVIDIA GPU"] * count)[:count]


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
