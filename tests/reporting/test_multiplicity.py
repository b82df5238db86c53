"""Claims of one report, corrected for their number."""

import numpy as np
import pytest

from w2sr_jax.grading.statistics import draws_p, holm, percentile_interval, t_interval, t_p
from w2sr_jax.reporting import multiplicity


def claim(p, holds):
    return {"p": p, "holds": holds}


def test_holms_correction_is_that_of_his_paper():
    # Times 4, 3, 2 and 1 from the smallest on, and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_few_false_verdicts_survive_where_nothing_differs():
    rng = np.random.default_rng(0)
    families = rng.normal(size=(500, 20, 3))
    wrong = [any(p < 0.05 for p in holm([t_p(values) for values in family])) for family in families]
    alone = [any(t_p(values) < 0.05 for values in family) for family in families]
    assert np.mean(wrong) < 0.08
    assert np.mean(alone) > 0.5


def test_p_is_below_five_per_cent_exactly_where_the_interval_leaves_zero_out():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(1)
    for _ in range(200):
        values = rng.normal(1, 1, size=4)
        assert t_p(values) == pytest.approx(ttest_1samp(values, 0).pvalue)
        low, high = t_interval(values)
        assert (t_p(values) < 0.05) == (low > 0 or high < 0)
        low, high = t_interval(values, least_error=0.7)
        assert high - low >= 2 * 0.7 * 3.182446  # t(.975, 3)
        assert (t_p(values, 0.7) < 0.05) == (low > 0 or high < 0)
        draws = rng.normal(rng.uniform(0, 4), 1, size=1000)
        low, high = percentile_interval(draws)
        # At the very edge they may differ by the one draw that p adds.
        assert (draws_p(draws) < 0.05) == (low > 0 or high < 0) or draws_p(draws) == pytest.approx(0.05, abs=0.004)
    assert (t_p([0.1, 0.1]), t_p([0.0, 0.0])) == (0.0, 1.0)


def test_what_survives_is_marked_and_counted():
    found = multiplicity.corrected(
        {"a": claim(0.001, True), "b": claim(0.04, True), "c": claim(0.6, "not shown"), "d": claim(0.002, False)}
    )
    assert [one["survives"] for one in found.values()] == [True, False, False, True]
    assert [multiplicity.cell(one) for one in found.values()] == ["0.004 *", "0.080", "0.600", "0.006 *"]
    text = multiplicity.sentence(found)
    assert "These are 4 claims" in text
    assert "0.1 of them would be expected to hold" in text
    assert "Of 3 found to hold or to fail, 2 survive" in text
    assert multiplicity.sentence({"a": found["a"]}) == ""
    assert multiplicity.cell(claim(0.1, True)) == "-"  # a report of old
