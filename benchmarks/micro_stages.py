"""Where an experiment's time goes: `python -m benchmarks.micro_stages runs/micro`, from the ledgers of its nodes."""

from __future__ import annotations

import sys
from pathlib import Path

from w2sr_jax.core.cost import LedgerLine, read_ledger
from w2sr_jax.reporting.tables import markdown_table


def by_stage(lines: list[LedgerLine]) -> list[list[str]]:
    """Cells: stage, nodes, seconds, of that compiling, share of all seconds; the most expensive stage first."""
    stages: dict[str, list[LedgerLine]] = {}
    for line in lines:
        stages.setdefault(line.stage, []).append(line)
    total = sum(line.seconds for line in lines)
    table = [["stage", "nodes", "seconds", "compiling", "share, %"]]
    for stage, found in sorted(stages.items(), key=lambda item: -sum(line.seconds for line in item[1])):
        seconds, compiling = (sum(getattr(line, key) for line in found) for key in ("seconds", "compile_seconds"))
        table.append([stage, str(len(found)), f"{seconds:.1f}", f"{compiling:.1f}", f"{100 * seconds / total:.1f}"])
    return table


def main(root: Path) -> str:
    """The table of all finished nodes below a workdir."""
    ledgers = sorted(path for path in root.rglob("ledger.jsonl") if ".old-" not in str(path))
    return markdown_table(by_stage([line for path in ledgers for line in read_ledger(path.parent)]))


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
