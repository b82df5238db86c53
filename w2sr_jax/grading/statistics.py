"""Pass@1, pass@k, RGR and the noise in them. Every interval is 95 % unless told otherwise.

Shape letters here: A arms, P problems, R resamples.
"""

from __future__ import annotations

import math
import statistics as stdlib
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
FEW = 10  # problems that tell two arms apart, below which bootstrap draws alone promise too much


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927): right also at 0 and at 1, where mean +- sd is not.

    Args:
        successes: how many of `trials` succeeded.
        trials: independent ones; for several samples a problem use `bootstrap_interval` over the problems.
    """
    if trials < 1:
        return 0.0, 1.0
    z = stdlib.NormalDist().inv_cdf(0.5 + confidence / 2)
    p, z2 = successes / trials, z * z
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials))
    # At the two ends the formula is exactly 0 and 1 but for rounding.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def newcombe_interval(higher: tuple[int, int], lower: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Interval of the difference of two independent rates, from their Wilson intervals (Newcombe 1998, method 10).

    Args:
        higher, lower: (right answers, problems) of each.
    """
    (low_a, high_a), (low_b, high_b) = (wilson_interval(*counts, confidence) for counts in (higher, lower))
    a, b = (right / total for right, total in (higher, lower))
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that one of k samples is right, unbiased: 1 - C(n-c, k) / C(n, k) (arXiv 2107.03374, eq. 1).

    Args:
        samples: n, drawn for one problem, at least k.
        correct: c, how many of them are right.
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(
            f"pass_at_k: need 0 <= correct <= samples and 1 <= k <= samples, got {samples=} {correct=} {k=}"
        )
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def bootstrap_means(scores_AP: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Mean scores of every arm on resampled problems; arms share each resample, so their differences stay paired.

    Args:
        scores_AP: [A, P] score of each arm on each problem, in [0, 1].

    Returns:
        [R, A] means.
    """
    num_problems = scores_AP.shape[1]
    means, chunk = [], max(1, 4_000_000 // num_problems)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, num_problems, (rows, num_problems)) + num_problems * np.arange(rows)[:, None]
        counts_RP = np.bincount(drawn.ravel(), minlength=rows * num_problems).reshape(rows, num_problems)
        means.append(counts_RP @ scores_AP.T / num_problems)
    return np.concatenate(means)


def percentile_interval(draws: np.ndarray, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of bootstrap draws. The ends are draws themselves, so infinite draws do no harm."""
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2], method="inverted_cdf")
    return float(low), float(high)


def bootstrap_interval(scores: Sequence[float] | np.ndarray, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Interval of a mean of per-problem scores, over problems (for avg@k, where samples of a problem go together).

    Equal scores (a benchmark that is too hard, or too easy) resample to themselves; theirs is Wilson's, over problems.
    """
    scores_AP = np.asarray(scores, dtype=float)[None]
    if np.ptp(scores_AP) == 0:
        return wilson_interval(float(scores_AP.sum()), scores_AP.size)
    return percentile_interval(bootstrap_means(scores_AP, resamples, np.random.default_rng(seed))[:, 0])


def rgr(student: float, base: float, ceiling: float) -> float:
    """Reasoning gap recovered, (student - base) / (ceiling - base) (arXiv 2505.20072)."""
    return (student - base) / (ceiling - base)


def rgr_draws(student: np.ndarray, base: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    """RGR of each bootstrap draw; infinite, with the numerator's sign, where the ceiling does not beat the base.

    RGR is only asked for when fewer than 2.5 % of the draws are of that kind: then they widen a 95 % interval
    without reaching its ends.
    """
    gain, gap = student - base, ceiling - base
    ratio = np.where(gain > 0, np.inf, -np.inf)
    np.divide(gain, gap, out=ratio, where=gap > 0)
    return ratio


def spearman(one: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> tuple[float, Interval]:
    """Rank correlation and its interval by Fisher's z with the variance of Bonett and Wright (2000), at least 4 pairs.

    A perfect order has no such interval; it gets that of the next best one (two neighbours exchanged), up to the end.
    """
    from scipy.stats import rankdata  # jax depends on scipy

    count = len(one)
    rho = float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
    most = 1 - 12 / (count * (count * count - 1))
    inner = max(-most, min(most, rho))
    z = stdlib.NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt((1 + inner * inner / 2) / (count - 3))
    low, high = math.tanh(math.atanh(inner) - z), math.tanh(math.atanh(inner) + z)
    return rho, (-1.0 if rho <= -most else low, 1.0 if rho >= most else high)


def t_interval(values: Sequence[float], confidence: float = 0.95, least_error: float = 0.0) -> Interval:
    """Student's t interval of the mean of a few independent values (seeds), at least two.

    Args:
        least_error: a standard error that the mean has in any case; by chance a few values can lie closer together.
    """
    half = _t(len(values) - 1, confidence) * _error(values, least_error)
    mean = stdlib.fmean(values)
    return mean - half, mean + half


def t_p(values: Sequence[float], least_error: float = 0.0) -> float:
    """Two-sided p of a mean of 0 by Student's t: below 0.05 exactly where `t_interval` leaves 0 out."""
    from scipy.special import stdtr  # jax depends on scipy

    mean, error = stdlib.fmean(values), _error(values, least_error)
    if error == 0:
        return 0.0 if mean else 1.0
    return float(2 * stdtr(len(values) - 1, -abs(mean) / error))


def mean_error(intervals: Sequence[Sequence[float]]) -> float:
    """Standard error of the mean of independent values, each of which has its 95 % interval here."""
    z = stdlib.NormalDist().inv_cdf(0.975)
    return math.hypot(*((high - low) / (2 * z) for low, high in intervals)) / len(intervals)


def _error(values: Sequence[float], least: float) -> float:
    return max(least, stdlib.stdev(values) / math.sqrt(len(values)))


def draws_p(draws: np.ndarray) -> float:
    """Two-sided p of a difference of 0 from its bootstrap draws; never 0: one draw more might differ."""
    other = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (other + 1) / (len(draws) + 1))


def paired_interval(draws: np.ndarray, differences_P: np.ndarray) -> Interval:
    """Interval of a difference from its bootstrap draws; the wider of it and `sign_interval` where few problems differ.

    Args:
        differences_P: of each problem, in its part of the whole difference, which is their sum.
    """
    low, high = percentile_interval(draws)
    if np.count_nonzero(differences_P) < FEW:
        least, most = sign_interval(differences_P)
        low, high = min(low, least), max(high, most)
    return low, high


def paired_p(draws: np.ndarray, differences_P: np.ndarray) -> float:
    """Two-sided p of a difference of 0, below 0.05 where `paired_interval` leaves 0 out."""
    p = draws_p(draws)
    return max(p, sign_p(differences_P)) if np.count_nonzero(differences_P) < FEW else p


def sign_p(differences_P: np.ndarray) -> float:
    """Two-sided p of the exact sign test: that as many of those that are not 0 have one sign by tosses of a coin."""
    plus, minus = int((differences_P > 0).sum()), int((differences_P < 0).sum())
    tail = sum(math.comb(plus + minus, i) for i in range(min(plus, minus) + 1)) / 2 ** (plus + minus)
    return min(1.0, 2 * tail)


def sign_interval(differences_P: np.ndarray, confidence: float = 0.95) -> Interval:
    """Interval of the sum of differences as large as these, if only their signs are chance.

    The share of positive ones has the exact interval of Clopper and Pearson (1934), so that 0 is left out exactly
    where `sign_p` is below 1 - confidence.
    """
    from scipy.special import betaincinv  # jax depends on scipy

    plus, minus = int((differences_P > 0).sum()), int((differences_P < 0).sum())
    tail = 0.5 - confidence / 2
    low = float(betaincinv(plus, minus + 1, tail)) if plus else 0.0
    high = float(betaincinv(plus + 1, minus, 1 - tail)) if minus else 1.0
    size = float(np.abs(differences_P).sum())
    return (2 * low - 1) * size, (2 * high - 1) * size


def holm(ps: Sequence[float]) -> list[float]:
    """The p values for all of them to be judged by one level (Holm 1979): smallest times n, next times n - 1, ..."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def fieller_interval(
    gains: Sequence[float],
    gaps: Sequence[float],
    confidence: float = 0.95,
    least: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Interval:
    """Interval of mean(gains) / mean(gaps) over paired values (Fieller 1954).

    It holds every r for which the t interval of mean(gain - r gap) has 0 in it. That is one bounded interval exactly
    if the t interval of the gaps leaves 0 out, which the caller makes sure of.

    Args:
        least: variance of the mean gain, its covariance with the mean gap, and the variance of that, which they have
            in any case. Each r is held against the larger of the two errors.
    """
    count, t = len(gains), _t(len(gains) - 1, confidence)
    gain, gap = stdlib.fmean(gains), stdlib.fmean(gaps)
    seen = (stdlib.variance(gains), stdlib.covariance(gains, gaps), stdlib.variance(gaps))
    ends: list[float] = []
    for of_gain, both, of_gap in ([value / count for value in seen], least):
        a, b, c = gap**2 - t * t * of_gap, gain * gap - t * t * both, gain**2 - t * t * of_gain
        if a <= 0:
            raise ValueError("fieller_interval: the mean gap is within its noise of 0")
        root = math.sqrt(max(0.0, b * b - a * c))
        ends += [(b - root) / a, (b + root) / a]
    return min(ends), max(ends)


def _t(degrees: int, confidence: float) -> float:
    from scipy.special import stdtrit  # jax depends on scipy

    return float(stdtrit(degrees, 0.5 + confidence / 2))
