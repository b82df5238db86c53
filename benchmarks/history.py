"""benchmarks/history.jsonl: every accepted figure with its commit and kind of machine, and the check against it.

A line is one row of one accepted run. What counts in the check is a row's newest line of the same kind of machine; only
medians of several runs can fail it, and peak memory, which every run measures alike.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from w2sr_jax.core.rows import Row

PATH = Path(__file__).parent / "history.jsonl"
ALLOWED = 0.10  # a ratio may fall by this share
LEAST_RUNS = 5
STEADY = ("peak memory, ",)  # rows that need no median
MOST_OTHERS = 0.05  # of the processor time, by other processes, in figures that are accepted

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How a run lies to history; a sentence each."""

    compared: set[str]  # whom the rows that could have failed are against
    fallen: list[str]  # ratios that fell by more than ALLOWED
    apart: list[str]  # what could not be compared, and why


def read(path: Path = PATH) -> list[Line]:
    """All lines, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def accept(rows: Sequence[Row], commit: str, date: str, path: Path = PATH) -> None:
    """Adds the rows of a run."""
    with path.open("a") as file:
        for one in rows:
            file.write(json.dumps({"date": date, "commit": commit} | one.to_json()) + "\n")


def refusal(*, same: bool, fallen: Sequence[str], dirty: bool, commit: str | None, others: float | None) -> str | None:
    """Why figures are not to be accepted, None where they may be.

    Args:
        same: whether every peer computed what we did.
        fallen: of the run's `Verdict`.
        dirty: whether the code differs from its commit.
        others: the largest share of the processor time that other processes took; None where nobody counted.
    """
    if not same:
        return "parity failed"
    if fallen:
        return (
            f"{len(fallen)} ratios fell; mend them, or take their newest lines out of history.jsonl and say why in "
            "BUILD_NOTES.md"
        )
    if commit is None or dirty:
        return "the code is not that of a commit; commit it first"
    if others is None or others > MOST_OTHERS:
        share = "nobody knows what share" if others is None else f"{100 * others:.0f} %"
        return f"other processes took {share} of the processor time, more than {100 * MOST_OTHERS:.0f} %"
    return None


def newest(lines: Sequence[Line], machine: str) -> dict[tuple[str, str, str], Line]:
    """(what, against, unit) -> its newest line of that kind of machine."""
    return {(line["what"], line["against"], line["unit"]): line for line in lines if line["machine"] == machine}


def absent(missing: Mapping[str, str], lines: Sequence[Line], machine: str) -> list[str]:
    """A sentence for each peer that a run was to have, and did not, while history has it of that kind of machine.

    Args:
        missing: peer -> why it was left out.
    """
    known = {against for _, against, _ in newest(lines, machine)}
    return [f"{peer}: {why}" for peer, why in sorted(missing.items()) if peer in known]


def check(rows: Sequence[Row], lines: Sequence[Line], machine: str) -> Verdict:
    """Holds a run's ratios against history."""
    now = {(one.what, one.against, one.unit): one for one in rows}
    known = newest(lines, machine)
    compared, fallen, apart = set[str](), list[str](), list[str]()
    for key, line in known.items():
        name = f"{line['what']}, against {line['against']}, {line['unit']}"
        if key not in now:
            apart.append(f"{name}: was not measured")
        elif min(now[key].runs, line["runs"]) < LEAST_RUNS and not line["what"].startswith(STEADY):
            apart.append(f"{name}: of fewer than {LEAST_RUNS} runs")
        else:
            compared.add(line["against"])
            if now[key].ratio < line["ratio"] * (1 - ALLOWED):
                fallen.append(f"{name}: {now[key].ratio:.2f}, was {line['ratio']:.2f} at {line['commit'][:10]}")
    for what, against, unit in now.keys() - known.keys():
        apart.append(f"{what}, against {against}, {unit}: has no accepted figure of this machine")
    return Verdict(compared, fallen, sorted(apart))
