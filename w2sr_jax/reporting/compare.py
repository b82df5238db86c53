"""Arms compared on the same problems: Pass@1, RGR, the free baselines and the claims, each with its noise.

One set of bootstrap resamples of the problems is shared by all arms, so every difference and ratio is paired. Where
fewer than ten problems tell two arms apart, their difference has to pass the exact sign test as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.core.trace_config import HYGIENE_FLAGS
from w2sr_jax.grading.statistics import (
    Interval,
    bootstrap_means,
    mean_error,
    paired_interval,
    paired_p,
    percentile_interval,
    rgr,
    rgr_draws,
)
from w2sr_jax.reporting.load import Arms, ceiling_of
from w2sr_jax.reporting.multiplicity import corrected

AVERAGE = "average"
NO_CEILING = "no arm is the ceiling (GRPO)"


class Comparison:
    """Means and bootstrap draws of every (arm, benchmark), and of the average over benchmarks."""

    def __init__(self, config: ReportConfig, arms: Arms):
        self.config, self.arms = config, arms
        self.benchmarks = list(arms[config.base])
        rng = np.random.default_rng(config.seed)
        self.means: dict[tuple[str, str], float] = {}
        self.draws: dict[tuple[str, str], np.ndarray] = {}
        for benchmark in self.benchmarks:
            scores_AP = np.stack([arms[arm][benchmark].scores_P for arm in arms])
            draws_RA = bootstrap_means(scores_AP, config.bootstrap, rng)
            for row, arm in enumerate(arms):
                self.means[arm, benchmark] = float(scores_AP[row].mean())
                self.draws[arm, benchmark] = draws_RA[:, row]
        for arm in arms:
            self.means[arm, AVERAGE] = float(np.mean([self.means[arm, b] for b in self.benchmarks]))
            self.draws[arm, AVERAGE] = np.mean([self.draws[arm, b] for b in self.benchmarks], axis=0)

    def arm(self, arm: str) -> dict[str, dict[str, Any]]:
        """{benchmark: {pass_at_1, interval, n, k, stop_rate}}, the average last.

        A benchmark has the interval of its result.json (Wilson, or bootstrap for samples); the average is bootstrapped.
        """
        found = {}
        for benchmark, evaluation in self.arms[arm].items():
            result = evaluation.result
            found[benchmark] = {
                "pass_at_1": self.means[arm, benchmark],
                "interval": list(result["interval"]),
                "n": len(evaluation.problem_ids),
                "k": result["k"],
                "stop_rate": result["stop_rate"],
            }
        rows = list(found.values())
        alone = len(rows) == 1
        found[AVERAGE] = {
            "pass_at_1": self.means[arm, AVERAGE],
            "interval": rows[0]["interval"] if alone else list(percentile_interval(self.draws[arm, AVERAGE])),
            "n": sum(row["n"] for row in rows),
            "stop_rate": float(np.mean([row["stop_rate"] for row in rows])),
        }
        return found

    def rgr(self, arm: str) -> dict[str, dict[str, Any]]:
        """{benchmark: {value, interval} or {undefined: reason}}, the average last, each with its `sampling`."""
        return {benchmark: self._rgr(arm, benchmark) for benchmark in [*self.benchmarks, AVERAGE]}

    def _rgr(self, arm: str, benchmark: str) -> dict[str, Any]:
        base, ceiling = self.config.base, ceiling_of(self.config)
        if ceiling is None:
            return {"undefined": NO_CEILING}
        gap, (low, high) = self.difference(ceiling, base, benchmark)
        sampling = self.sampling(arm, base, ceiling, benchmark)
        if low <= 0:
            reason = (
                f"the ceiling {ceiling!r} does not beat the base {base!r} beyond noise: "
                f"{gap:+.3f}, 95 % interval [{low:+.3f}, {high:+.3f}]"
            )
            return {"undefined": reason, "sampling": sampling}
        value = rgr(self.means[arm, benchmark], self.means[base, benchmark], self.means[ceiling, benchmark])
        draws = rgr_draws(self.draws[arm, benchmark], self.draws[base, benchmark], self.draws[ceiling, benchmark])
        return {"value": value, "interval": list(percentile_interval(draws)), "sampling": sampling}

    def sampling(self, arm: str, base: str, ceiling: str, benchmark: str) -> list[float]:
        """Variance of an arm's gain by the choice of problems, its covariance with the gap, the variance of the gap."""
        gain, gap = (mean_error([self.difference(one, base, benchmark)[1]]) for one in (arm, ceiling))
        draws = [self.draws[one, benchmark] - self.draws[base, benchmark] for one in (arm, ceiling)]
        related = float(np.corrcoef(draws)[0, 1]) if all(np.ptp(of) for of in draws) else 0.0
        return [gain**2, related * gain * gap, gap**2]

    def difference(self, higher: str, lower: str, benchmark: str = AVERAGE) -> tuple[float, Interval]:
        """Pass@1 of one arm less that of another, with the paired interval."""
        interval = paired_interval(*self._paired(higher, lower, benchmark))
        return self.means[higher, benchmark] - self.means[lower, benchmark], interval

    def _paired(self, higher: str, lower: str, benchmark: str) -> tuple[np.ndarray, np.ndarray]:
        """Bootstrap draws of a difference, and what each problem adds to it."""
        names = self.benchmarks if benchmark == AVERAGE else [benchmark]
        scores = [(self.arms[higher][name].scores_P, self.arms[lower][name].scores_P) for name in names]
        parts = [(one - other) / (len(one) * len(names)) for one, other in scores]
        return self.draws[higher, benchmark] - self.draws[lower, benchmark], np.concatenate(parts)

    def p(self, higher: str, lower: str) -> float:
        """Two-sided, of no difference on the average over benchmarks."""
        return paired_p(*self._paired(higher, lower, AVERAGE))

    def gain(self, arm: str) -> dict[str, Any]:
        """Pass@1 above the base's, on the average over benchmarks."""
        value, interval = self.difference(arm, self.config.base)
        return {"value": value, "interval": list(interval)}

    def claim(self, higher: str, lower: str) -> dict[str, Any]:
        """Whether `higher` scores above `lower` on the average over benchmarks."""
        difference, interval = self.difference(higher, lower)
        return {
            "higher": higher,
            "lower": lower,
            "difference": difference,
            "interval": list(interval),
            "p": self.p(higher, lower),
            "holds": verdict(interval),
        }

    def scoring(self, arm: str) -> dict[str, dict[str, Any]]:
        """{benchmark: {main, second, first_box, last_box, stop_at_box, disagreements}}; empty for results without."""
        found = {}
        for benchmark, evaluation in self.arms[arm].items():
            result = evaluation.result
            if "second_grader" in result and "box_rules" in result:
                second = result["second_grader"]
                found[benchmark] = {
                    "main": self.means[arm, benchmark],
                    "second": second["pass_at_1"],
                    **result["box_rules"],
                    "disagreements": {"main_only": second["main_only"], "second_only": second["second_only"]},
                }
        return found

    def hygiene(self, arm: str) -> dict[str, int]:
        """{flag: responses that raise it}, over all benchmarks, and how many responses there are."""
        predictions = [p for evaluation in self.arms[arm].values() for p in evaluation.predictions]
        flags = {flag: sum(flag in p.hygiene for p in predictions) for flag in HYGIENE_FLAGS}
        return {"responses": len(predictions)} | flags


def verdict(interval: tuple[float, float]) -> bool | str:
    """True or False if the interval of a difference leaves 0 out, else "not shown"."""
    low, high = interval
    return True if low > 0 else False if high < 0 else "not shown"


def compare(config: ReportConfig, arms: Arms) -> dict[str, Any]:
    """The part of report.json that says how good the arms are."""
    comparison = Comparison(config, arms)
    students = [a for a in arms if a not in (config.base, config.ceiling, *config.baselines)]
    return {
        "arms": {arm: comparison.arm(arm) for arm in arms},
        "rgr": {arm: comparison.rgr(arm) for arm in students},
        "baselines": {arm: _baseline(comparison, arm) for arm in config.baselines},
        "gains": {arm: comparison.gain(arm) for arm in students},
        "claims": corrected({sentence: comparison.claim(*pair) for sentence, pair in config.claims.items()}),
        "hygiene": {arm: comparison.hygiene(arm) for arm in arms},
        "scoring": {arm: comparison.scoring(arm) for arm in arms},
    }


def _baseline(comparison: Comparison, arm: str) -> dict[str, dict[str, Any]]:
    """What the baseline scores, and the RGR it has for free."""
    scores, free = comparison.arm(arm), comparison.rgr(arm)
    return {
        benchmark: {"pass_at_1": row["pass_at_1"], "interval": row["interval"], "rgr": free[benchmark]}
        for benchmark, row in scores.items()
    }
