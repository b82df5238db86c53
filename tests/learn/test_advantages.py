"""Group advantages and the overlong penalty against values worked out by hand."""

import numpy as np

from w2sr_jax.learn.advantages import group_advantages, overlong_penalty


def test_grpo_divides_by_the_unbiased_deviation():
    # mean 1/4, deviations 3/4 -1/4 -1/4 -1/4, sum of squares 3/4, unbiased variance 1/4, std 1/2
    advantages, flat = group_advantages([[1, 0, 0, 0]], "grpo")
    np.testing.assert_allclose(advantages, [[1.5, -0.5, -0.5, -0.5]], rtol=1e-5)
    assert (flat, advantages.dtype) == (0, np.float32)


def test_dr_grpo_only_subtracts_the_mean():
    advantages, _ = group_advantages([[1, 0, 0, 0], [1, 1, 0, 0]], "dr_grpo")
    np.testing.assert_allclose(advantages, [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]])


def test_groups_without_variance_get_exactly_zero_and_are_counted():
    rewards = [[0.1] * 7, [1, 1, 1, 1, 1, 1, 0], [0] * 7]  # the mean of seven 0.1 is not 0.1 in binary
    for kind in ("grpo", "dr_grpo"):
        advantages, flat = group_advantages(rewards, kind)
        assert flat == 2
        assert not advantages[0].any()
        assert not advantages[2].any()
        assert advantages[1].all()


def test_a_group_of_one_has_no_advantage():
    advantages, flat = group_advantages([[1.0]], "grpo")
    assert (advantages.tolist(), flat) == ([[0.0]], 1)


def test_overlong_penalty_falls_linearly_over_the_buffer():
    lengths = [0, 80, 81, 90, 100, 120]
    np.testing.assert_allclose(overlong_penalty(lengths, 100, 20), [0, 0, -0.05, -0.5, -1, -1], rtol=1e-6)
    assert not overlong_penalty(lengths, 100, 0).any()
