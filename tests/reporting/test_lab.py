"""Trace sets compared."""

import numpy as np
import pytest

from w2sr_jax.core.records import GradedTrace
from w2sr_jax.grading.statistics import spearman
from w2sr_jax.reporting import lab, lab_page
from w2sr_jax.traces.lab import study


def made(right, tokens=20, total=10, response="1+1=2 \\boxed{2}"):
    """A set of `total` traces with `right` right ones."""
    return study(
        [
            (GradedTrace(
                problem_id=f"p{i}", sample=0, response=f"{i} {response}", response_tokens=tokens + i, teacher="t",
                finish_reason="stop", extracted="2", correct=i < right, grader="g", hygiene=[],
            ), None)
            for i in range(total)
        ],
        {f"p{i}": str(i % 2) for i in range(total)},
    )  # fmt: skip


def gain(value):
    return {"value": value, "interval": [value - 0.1, value + 0.1]}


def test_the_rank_correlation_is_that_of_scipy_and_its_interval_covers():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, other = rng.normal(size=30), rng.normal(size=30)
    rho, (low, high) = spearman(one, other)
    assert rho == pytest.approx(spearmanr(one, other).statistic)
    assert low < rho < high
    rho, (low, high) = spearman(range(8), range(8))
    assert (rho, high) == (1.0, 1.0)
    assert 0 < low < 1
    hits = 0
    for _ in range(300):
        x = rng.normal(size=12)
        y = 0.5 * x + np.sqrt(0.75) * rng.normal(size=12)
        _, (low, high) = spearman(x, y)
        hits += low <= 6 / np.pi * np.arcsin(0.25) <= high
    assert 270 <= hits <= 300


def test_with_few_sets_nothing_is_said_of_what_goes_with_the_gain():
    sets = {f"s{i}": made(i) for i in range(5)}
    found = lab.go_with(sets, {name: gain(0.1) for name in sets})
    assert found["right, %"] == {"too_few": 5}
    assert lab.go_with(sets, {}) == {}


def test_with_enough_sets_each_feature_has_its_correlation_or_is_the_same_everywhere():
    sets = {f"s{i}": made(i) for i in range(8)}
    found = lab.go_with(sets, {f"s{i}": gain(i / 10) for i in range(8)})
    assert found["right, %"]["rho"] == pytest.approx(1)
    assert found["right, %"]["sets"] == 8
    assert found["tokens"] == {"constant": 24.5}
    assert "perplexity" not in found


def test_a_set_without_known_tokens_is_left_out_of_their_correlation_alone():
    sets = {f"s{i}": made(i) for i in range(8)}
    sets["s7"]["tokens"] = None
    found = lab.go_with(sets, {f"s{i}": gain(i / 10) for i in range(8)})
    assert lab.features(sets["s7"])["tokens"] is None
    assert found["right, %"]["sets"] == 8
    assert found["tokens"] == {"constant": 24.5}
    pooled = lab.pooled([{"sets": {"a": sets["s7"]}, "gains": {}, "gain_is": "x"}] * 2)
    assert pooled["sets"]["a"]["tokens"] is None
    assert any("-" in row for row in lab_page.overview(pooled))


def test_seeds_are_pooled_by_sums_and_by_means_over_seeds():
    labs = [
        {"sets": {"a": made(4, tokens), "only_here": made(1)}, "gains": {"a": gain(tokens / 100)}, "gain_is": "x"}
        for tokens in (10, 20)
    ]
    del labs[1]["sets"]["only_here"]
    found = lab.pooled(labs)
    one = found["sets"]["a"]
    assert list(found["sets"]) == ["a"]
    assert (one["traces"], one["right"], one["graded"]) == (20, 8, 20)
    assert one["tokens"]["mean"] == 19.5
    low, high = one["tokens"]["interval"]  # t over two seeds is wide
    assert low < 14.5 < 24.5 < high
    assert one["by_level"] == {"0": [4, 10], "1": [4, 10]}
    assert found["gains"]["a"]["value"] == pytest.approx(0.15)


def bins(*rows):
    """A set whose bins of length are these: (mean, right, graded)."""
    found = made(4)
    names = ("from", "to", "mean", "right", "graded")
    found["by_length"] = [dict(zip(names, (m - 1, m + 1, m, r, g), strict=True)) for m, r, g in rows]
    return {"sets": {"a": found}, "gains": {}, "gain_is": "x"}


def test_bins_of_length_are_pooled_by_length_and_none_is_lost():
    found = lab.pooled([bins((11, 9, 10), (49, 1, 10)), bins((9, 9, 10), (30, 5, 10), (51, 1, 10), (90, 0, 10))])
    rows = found["sets"]["a"]["by_length"]
    assert [(row["from"], row["to"], row["right"], row["graded"]) for row in rows] == [
        (8, 12, 18, 20),
        (29, 31, 5, 10),
        (48, 52, 2, 20),
        (89, 91, 0, 10),
    ]
    assert [row["mean"] for row in rows] == [10, 30, 50, 90]
    alike = lab.pooled([bins((10, 9, 10), (50, 1, 10))] * 3)["sets"]["a"]["by_length"]
    assert [(row["right"], row["graded"]) for row in alike] == [(27, 30), (3, 30)]
    assert lab.pooled([bins((10, 9, 10)), bins()])["sets"]["a"]["by_length"] == []


def test_the_page_says_what_is_missing_and_how_to_get_it():
    found = {"sets": {"a": made(4)}, "gains": {}, "gain_is": "the student's gain, points", "go_with": {}}
    (section,) = lab_page.sections({"trace_lab": found})
    text = " ".join(getattr(part, "text", "") for part in section.parts)
    assert "No perplexity" in text
    assert "--config.score_model=STUDENT" in text
    assert "No evaluated student" in text
    assert lab_page.sections({}) == []
