"""benchmarks/history.jsonl: every accepted figure with its commit and kind of machine, and the check against it.

A line is one row of one accepted run. What counts in the check is a row's newest line of the same kind of machine; only
medians of several runs can fail it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2sr_jax.core.rows import Row

PATH = Path(__file__).parent / "history.jsonl"
ALLOWED = 0.10  # a ratio may fall by this share
LEAST_RUNS = 5

Line = dict[str, Any]


def read(path: Path = PATH) -> list[Line]:
    """All lines, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def accept(rows: Sequence[Row], commit: str, date: str, path: Path = PATH) -> None:
    """Adds the rows of a run."""
    with path.open("a") as file:
        for one in rows:
            file.write(json.dumps({"date": date, "commit": commit} | one.to_json()) + "\n")


def newest(lines: Sequence[Line], machine: str) -> dict[tuple[str, str, str], Line]:
    """(what, against, unit) -> its newest line of that kind of machine."""
    return {(line["what"], line["against"], line["unit"]): line for line in lines if line["machine"] == machine}


def check(rows: Sequence[Row], lines: Sequence[Line], machine: str) -> tuple[list[str], list[str]]:
    """Holds a run's ratios against history.

    Returns:
        (what fell by more than ALLOWED, what could not be compared): a sentence each.
    """
    now = {(one.what, one.against, one.unit): one for one in rows}
    fallen, apart = [], []
    for key, line in newest(lines, machine).items():
        name = f"{line['what']}, against {line['against']}, {line['unit']}"
        if key not in now:
            apart.append(f"{name}: was not measured")
        elif now[key].runs < LEAST_RUNS or line["runs"] < LEAST_RUNS:
            apart.append(f"{name}: of fewer than {LEAST_RUNS} runs")
        elif now[key].ratio < line["ratio"] * (1 - ALLOWED):
            fallen.append(f"{name}: {now[key].ratio:.2f}, was {line['ratio']:.2f} at {line['commit'][:10]}")
    return fallen, apart
