"""RGR from published numbers: all that is known of an arm is its Pass@1 and how many problems were asked.

Without the answers nothing can be paired. Each score is taken as a number of right answers among n, its uncertainty as
the Beta(right + 1/2, wrong + 1/2) of Jeffreys' prior, independent between arms: wider than the paired interval of an
experiment's own predictions, and never of width 0 at a score of 0. Whether the ceiling beats the base is asked of
Newcombe's interval too, since RGR with so small a denominator would be noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.grading.statistics import Interval, draws_p, newcombe_interval, percentile_interval, wilson_interval
from w2sr_jax.reporting.compare import AVERAGE, Comparison
from w2sr_jax.reporting.multiplicity import corrected

STUDENT = "student"


class RowComparison(Comparison):
    """Means as published, draws from each score's own uncertainty."""

    def __init__(self, config: ReportConfig, rows: dict[str, tuple[float, ...]]):
        self.config, self.arms = config, {arm: {} for arm in rows}
        self.benchmarks, self.sizes = list(config.row_problems), config.row_problems
        rng = np.random.default_rng(config.seed)
        self.means, self.draws = {}, {}
        for arm, row in rows.items():
            for (benchmark, n), percent in zip(self.sizes.items(), row, strict=True):
                right = percent / 100 * n
                self.means[arm, benchmark] = percent / 100
                self.draws[arm, benchmark] = rng.beta(right + 0.5, n - right + 0.5, config.bootstrap)
            self.means[arm, AVERAGE] = float(np.mean([self.means[arm, b] for b in self.benchmarks]))
            self.draws[arm, AVERAGE] = np.mean([self.draws[arm, b] for b in self.benchmarks], axis=0)

    def difference(self, higher: str, lower: str, benchmark: str = AVERAGE) -> tuple[float, Interval]:
        """As published, with the wider of the two intervals; the average over benchmarks has the draws' alone."""
        gap = self.means[higher, benchmark] - self.means[lower, benchmark]
        low, high = percentile_interval(self.draws[higher, benchmark] - self.draws[lower, benchmark])
        if benchmark in self.sizes:
            n = self.sizes[benchmark]
            above, below = (round(self.means[arm, benchmark] * n) for arm in (higher, lower))
            one, two = newcombe_interval((above, n), (below, n))
            low, high = min(low, one), max(high, two)
        return gap, (low, high)

    def p(self, higher: str, lower: str) -> float:
        return draws_p(self.draws[higher, AVERAGE] - self.draws[lower, AVERAGE])

    def arm(self, arm: str) -> dict[str, dict[str, Any]]:
        """{benchmark: {pass_at_1, interval, n}}: Wilson's interval of the nearest count, the draws' for the average."""
        found = {
            benchmark: {
                "pass_at_1": self.means[arm, benchmark],
                "interval": list(wilson_interval(round(self.means[arm, benchmark] * n), n)),
                "n": n,
            }
            for benchmark, n in self.sizes.items()
        }
        found[AVERAGE] = {
            "pass_at_1": self.means[arm, AVERAGE],
            "interval": list(percentile_interval(self.draws[arm, AVERAGE])),
            "n": sum(self.sizes.values()),
        }
        return found


def compare_rows(config: ReportConfig) -> dict[str, Any]:
    """report.json of published rows and, where one is given, a student's.

    Raises:
        UsageError: base or ceiling is not among the rows, or a row is already called student.
    """
    for key, arm in (("base", config.base), ("ceiling", config.ceiling)):
        if arm not in config.rows:
            raise UsageError(f"config.{key}: {arm!r} is not among config.rows ({', '.join(config.rows)})")
    if STUDENT in config.rows and config.student_row:
        raise UsageError(f"config.student_row: config.rows has a row named {STUDENT!r} already")
    rows = dict(config.rows) | ({STUDENT: config.student_row} if config.student_row else {})
    comparison = RowComparison(config, rows)
    students = [arm for arm in rows if arm not in (config.base, config.ceiling)]
    return {
        "kind": "published",
        "title": config.title,
        "seed": config.seed,
        "base": config.base,
        "ceiling": config.ceiling,
        "arms": {arm: comparison.arm(arm) for arm in rows},
        "rgr": {arm: comparison.rgr(arm) for arm in students},
        "baselines": {},
        "claims": corrected({sentence: comparison.claim(*pair) for sentence, pair in config.claims.items()}),
        "hygiene": {},
        "scoring": {},
        "ledger": {"routes": {}, "teacher": None, "definitions": {}, "ratios": {}},
        "decoding": {},
        "mixed": [],
        "notes": list(config.row_notes),
    }
