"""The stop rule of GRPO."""

import dataclasses

from w2sr_jax.learn.convergence import Convergence


def see(rule, *scores):
    return [rule.see(score) for score in scores]


def test_it_is_done_after_so_many_validations_without_a_gain():
    rule = Convergence(min_gain=0.1, patience=2)
    assert see(rule, 0.2, 0.25) == [True, True]
    assert not rule.done
    assert see(rule, 0.25) == [False]
    assert rule.done
    assert (rule.best, rule.mark, rule.stale) == (0.25, 0.2, 2)


def test_small_gains_add_up_to_one_that_counts():
    rule = Convergence(min_gain=0.1, patience=3)
    see(rule, 0.2, 0.25, 0.3)
    assert (rule.mark, rule.stale) == (0.3, 0)


def test_the_same_score_again_is_no_gain_even_where_every_gain_counts():
    rule = Convergence(min_gain=0.0, patience=3)
    see(rule, 1.0, 1.0, 1.0)
    assert (rule.stale, rule.done) == (2, False)
    see(rule, 1.0)
    assert rule.done


def test_the_first_score_counts_even_when_it_is_zero():
    rule = Convergence(min_gain=0.01, patience=1)
    assert rule.see(0.0)
    assert not rule.done


def test_a_worse_score_is_never_the_best():
    rule = Convergence(min_gain=0.0, patience=5)
    assert see(rule, 0.5, 0.4, 0.5, 0.6) == [True, False, False, True]


def test_a_target_ends_it_at_once_and_zero_is_no_target():
    rule = Convergence(min_gain=0.0, patience=9, target=0.5)
    rule.see(0.4)
    assert not rule.done
    rule.see(0.5)
    assert rule.done
    untargeted = Convergence(min_gain=0.0, patience=9)
    untargeted.see(1.0)
    assert not untargeted.done


def test_its_state_survives_a_checkpoint():
    rule = Convergence(min_gain=0.1, patience=2, target=0.9)
    see(rule, 0.3, 0.3)
    assert dataclasses.replace(Convergence(0.1, 2, 0.9), **dataclasses.asdict(rule)) == rule
