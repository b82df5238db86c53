"""Where a GRPO step's time goes: `python -m benchmarks.grpo_step RUN`, from metrics.jsonl of `w2sr grpo`."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.reporting.tables import markdown_table

WARM_UP = 3  # steps that compile


def parts(row: dict[str, Any]) -> dict[str, float]:
    """Seconds of one step. Grading begins when the rollout's last answer is there, and is counted apart from it."""
    reward = row["data_wait_seconds"]
    return {
        "rollout": row["rollout_seconds"] - reward,
        "reward": reward,
        "old logprobs": row["old_logprobs_seconds"],
        "reference": row["reference_seconds"],
        "gradient and optimizer": row["gradient_seconds"],
        "sync": row["sync_seconds"],
    }


def main(run: Path) -> str:
    """The table: median seconds of each part after the warm-up, and its share of their sum."""
    steps = [parts(row) for row in read_metrics(run)]
    counted = steps[WARM_UP:] or steps
    medians = {name: statistics.median(step[name] for step in counted) for name in counted[0]}
    total = sum(medians.values())
    table = [["part of a step", "seconds", "share, %"]]
    table += [[name, f"{value:.4g}", f"{100 * value / total:.1f}"] for name, value in medians.items()]
    return markdown_table([*table, [f"all, of {len(counted)} steps", f"{total:.4g}", "100.0"]])


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
