"""Intervals against tables, brute force and simulated coverage."""

import itertools

import numpy as np
import pytest

from w2sr_jax.grading import statistics as st


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 3 (Wilson's score)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_wilson_agrees_with_a_published_table(successes, trials, low, high):
    assert st.wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_knows_nothing():
    assert st.wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("correct", range(7))
@pytest.mark.parametrize("k", range(1, 7))
def test_pass_at_k_is_the_share_of_k_subsets_that_hold_a_right_sample(correct, k):
    subsets = list(itertools.combinations([True] * correct + [False] * (6 - correct), k))
    assert st.pass_at_k(6, correct, k) == pytest.approx(np.mean([any(s) for s in subsets]))


@pytest.mark.parametrize("bad", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(bad):
    with pytest.raises(ValueError, match="pass_at_k"):
        st.pass_at_k(*bad)


def test_bootstrap_means_have_the_exact_mean_and_variance_and_keep_pairs():
    scores = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    draws = st.bootstrap_means(np.stack([scores, 1 - scores]), 20_000, np.random.default_rng(1))
    assert draws.shape == (20_000, 2)
    np.testing.assert_allclose(draws.sum(1), 1.0)  # a problem drawn for one arm is drawn for the other
    assert draws[:, 0].mean() == pytest.approx(scores.mean(), abs=0.002)
    assert draws[:, 0].var() == pytest.approx(scores.var() / 50, rel=0.05)


def test_bootstrap_is_the_same_for_the_same_seed_however_it_is_chunked():
    scores = np.random.default_rng(0).random((1, 3_000_000))
    draws = st.bootstrap_means(scores, 2, np.random.default_rng(5))
    assert draws.shape == (2, 1)
    assert st.bootstrap_interval([0, 1, 1, 0, 1], 500, seed=3) == st.bootstrap_interval([0, 1, 1, 0, 1], 500, seed=3)


def test_paired_bootstrap_covers_the_true_difference_about_95_times_in_100():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(300):
        skill = rng.random(120)  # shared difficulty: the pairing matters
        higher = rng.random(120) < np.clip(skill + 0.1, 0, 1)
        lower = rng.random(120) < skill
        truth = 0.1 - 0.1**2 / 2  # E[min(u + .1, 1)] - E[u]
        low, high = paired_interval(higher, lower, 400, trial)
        hits += low <= truth <= high
    assert 0.91 <= hits / 300 <= 0.985


def test_paired_bootstrap_of_one_arm_with_itself_is_exactly_zero():
    assert paired_interval([0, 1, 1], [0, 1, 1], 100, 0) == (0.0, 0.0)


def paired_interval(higher, lower, resamples, seed):
    """Of the difference of two arms, as the report makes it."""
    scores_AP = np.asarray([higher, lower], dtype=float)
    draws = st.bootstrap_means(scores_AP, resamples, np.random.default_rng(seed))
    return st.percentile_interval(draws[:, 0] - draws[:, 1])


def test_the_bootstrap_of_equal_scores_is_wilsons_interval_over_the_problems():
    assert st.bootstrap_interval([1.0] * 30) == st.wilson_interval(30, 30)
    assert st.bootstrap_interval([0.5] * 30) == st.wilson_interval(15, 30)


def test_rgr_by_hand():
    assert st.rgr(0.6, 0.2, 0.7) == pytest.approx(0.8)
    assert st.rgr(0.1, 0.2, 0.7) == pytest.approx(-0.2)


def test_rgr_draws_without_a_gap_are_infinite_and_leave_the_ends_of_the_interval_finite():
    student, base, ceiling = np.array([0.5, 0.5, 0.1, 0.2]), np.full(4, 0.2), np.array([0.6, 0.2, 0.1, 0.2])
    np.testing.assert_allclose(st.rgr_draws(student, base, ceiling), [0.75, np.inf, -np.inf, -np.inf])
    draws = np.concatenate([np.linspace(0, 1, 980), np.full(20, np.inf)])
    assert st.percentile_interval(draws) == pytest.approx((0.0245, 0.994), abs=0.002)


def test_t_interval_by_hand():
    # mean 2, sd 1, n 3, t(.975, 2) = 4.302653
    assert st.t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)


def test_fieller_holds_exactly_the_ratios_whose_t_interval_has_zero_in_it():
    gains, gaps = [0.50, 0.62, 0.41, 0.58], [0.70, 0.71, 0.55, 0.69]
    low, high = st.fieller_interval(gains, gaps)
    assert low < sum(gains) / sum(gaps) < high
    for ratio, inside in [(low - 0.01, False), (low + 0.01, True), (high - 0.01, True), (high + 0.01, False)]:
        ends = st.t_interval([g - ratio * d for g, d in zip(gains, gaps, strict=True)])
        assert (ends[0] <= 0 <= ends[1]) == inside


def test_fieller_refuses_a_gap_within_noise():
    with pytest.raises(ValueError, match="within its noise"):
        st.fieller_interval([0.1, 0.2], [-0.1, 0.2])


def test_fieller_is_held_against_the_larger_of_the_seeds_error_and_one_that_is_there_in_any_case():
    gains, gaps, least = [0.40, 0.41, 0.39, 0.42], [0.70, 0.71, 0.55, 0.69], (0.003, 0.001, 0.002)
    low, high = st.fieller_interval(gains, gaps, least=least)
    assert low < st.fieller_interval(gains, gaps)[0]
    for ratio, inside in [(low - 0.01, False), (low + 0.01, True), (high - 0.01, True), (high + 0.01, False)]:
        error = (least[0] - 2 * ratio * least[1] + ratio**2 * least[2]) ** 0.5
        ends = st.t_interval([g - ratio * d for g, d in zip(gains, gaps, strict=True)], least_error=error)
        assert (ends[0] <= 0 <= ends[1]) == inside
    with pytest.raises(ValueError, match="within its noise"):
        st.fieller_interval(gains, gaps, least=(0.0, 0.0, 0.1))


def test_the_error_of_a_mean_by_the_intervals_of_its_values():
    # A standard error of 0.03 and one of 0.04: (0.03^2 + 0.04^2)^0.5 / 2
    intervals = [(0.5 - 1.959964 * error, 0.5 + 1.959964 * error) for error in (0.03, 0.04)]
    assert st.mean_error(intervals) == pytest.approx(0.025)


def test_the_sign_test_is_that_of_scipy_and_its_interval_leaves_zero_out_exactly_where_p_is_small():
    from scipy.stats import binomtest

    for plus, minus in itertools.product(range(10), repeat=2):
        signs = np.array([0.01] * plus + [-0.01] * minus + [0.0] * 5)
        expected = binomtest(plus, plus + minus).pvalue if plus + minus else 1.0
        assert st.sign_p(signs) == pytest.approx(expected)
        low, high = st.sign_interval(signs)
        assert low <= 0.01 * (plus - minus) <= high
        assert (st.sign_p(signs) < 0.05) == (low > 0 or high < 0)


def test_four_of_thirty_problems_are_too_few_for_a_verdict_and_p_and_interval_agree():
    for plus in range(10):
        for minus in range(10 - plus):
            scores_AP = np.zeros((2, 30))
            scores_AP[0, :plus] = scores_AP[1, plus : plus + minus] = 1
            means = st.bootstrap_means(scores_AP, 4000, np.random.default_rng(0))
            paired = means[:, 0] - means[:, 1], (scores_AP[0] - scores_AP[1]) / 30
            p, (low, high) = st.paired_p(*paired), st.paired_interval(*paired)
            assert (p < 0.05) == (low > 0 or high < 0)
            if plus + minus < 10:
                assert p >= st.sign_p(paired[1])
            if (plus, minus) == (4, 0):
                assert st.draws_p(paired[0]) < 0.05
                assert p == pytest.approx(0.125)
    many = np.repeat([0.01, 0.0], [12, 18])
    draws = np.linspace(0.05, 0.2, 1000)
    assert st.paired_interval(draws, many) == st.percentile_interval(draws)
    assert st.paired_p(draws, many) == st.draws_p(draws)


def test_newcombe_s_interval_of_a_difference():
    # Newcombe 1998, table II, example (a): 56/70 against 48/80, method 10.
    assert st.newcombe_interval((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    low, high = st.newcombe_interval((0, 30), (0, 30))
    assert low == -high < 0
