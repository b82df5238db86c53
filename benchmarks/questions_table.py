"""The tables of configs/experiments/README.md: `python -m benchmarks.questions_table runs/questions`, a finished run.

For each section of its report: the arms that no earlier section has shown, with each seed's Pass@1, their mean and
standard deviation, RGR, and what they learned from; then the claims with their verdicts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from w2sr_jax.core.files import read_json
from w2sr_jax.reporting import multiplicity, sizes, tables

Report = dict[str, Any]
ARMS = "| student or model | seeds | mean ± sd | RGR (95 %) | traces (problems) |\n|---|---|---|---|---|"
CLAIMS = "| claim | points (95 %) | verdict | p (Holm) |\n|---|---|---|---|"


def main(workdir: Path) -> str:
    """The tables' Markdown."""
    report = read_json(workdir / "report" / "report.json")
    seen: dict[str, list[float]] = {}
    parts = []
    for section in report["sections"]:
        parts += [f"## {section['title']}", *_arms(section, seen), *tables.notes(section)]
        parts.append("\n".join([CLAIMS, *(_claim(text, claim) for text, claim in section["claims"].items())]))
        parts += [many] if (many := multiplicity.sentence(section["claims"])) else []
    return "\n\n".join(parts)


def _arms(section: Report, seen: dict[str, list[float]]) -> list[str]:
    name, rows = tables.headline(section), []
    for arm, benchmarks in section["arms"].items():
        row = benchmarks[name]
        values = row.get("per_seed", [row["pass_at_1"]])
        if seen.get(arm) != values:
            seen[arm] = values
            each = " / ".join(tables.percent(value) for value in values)
            mean = tables.percent(row["pass_at_1"]) + (f" ± {tables.percent(row['sd'])}" if "sd" in row else "")
            learned = section.get("trace_sizes", {}).get(arm)
            size = sizes.cell(learned) if learned else "-"
            rows.append(f"| {arm} | {each} | {mean} | {tables.rgr_of(section, arm, name)} | {size} |")
    return ["\n".join([ARMS, *rows])] if rows else []


def _claim(sentence: str, claim: dict[str, Any]) -> str:
    low, high = (100 * end for end in claim["interval"])
    verdict = tables.VERDICTS[claim["holds"]]
    if "seeds" in claim:
        verdict += f", {claim['seeds_holding']} of {claim['seeds']}"
    points = f"{100 * claim['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"| {sentence} | {points} | {verdict} | {multiplicity.cell(claim)} |"


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
