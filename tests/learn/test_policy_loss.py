"""The policy loss against a table worked out by hand and an independent numpy reference."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import GRPOLossConfig
from w2sr_jax.learn.advantages import group_advantages
from w2sr_jax.learn.losses import MAX_METRICS, policy_loss, totals

LOG = np.log


def config(**fields):
    return GRPOLossConfig(**({"kl": 0.0} | fields))


def one_token(ratio, advantage, **fields):
    """Loss and metrics of a single response token with this ratio."""
    new, old = jnp.full((1, 1), LOG(0.25) + LOG(ratio)), jnp.full((1, 1), LOG(0.25))
    return policy_loss(config(**fields), new, old, old, jnp.full(1, advantage), jnp.ones((1, 1)))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, 0),
        (1.1, 2.0, -2.2, 0),
        (1.5, 2.0, -2.4, 1),  # held at 1.2
        (0.5, 2.0, -1.0, 0),  # the pessimistic side is free
        (0.9, -2.0, 1.8, 0),
        (0.5, -2.0, 1.6, 1),  # held at 0.8
        (1.5, -2.0, 3.0, 0),  # the pessimistic side is free
        (3.0, 0.0, 0.0, 0),
    ],
)
def test_clipped_loss_of_one_token_as_worked_out_by_hand(ratio, advantage, loss, clipped):
    got, metrics = one_token(ratio, advantage)
    np.testing.assert_allclose(got, loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["ratio_mean"], ratio, rtol=1e-6)
    assert float(metrics["clip_fraction"]) == clipped


def test_clip_higher_lets_only_the_upper_side_go_further():
    assert float(one_token(1.27, 1.0, clip_high=0.28)[0]) == pytest.approx(-1.27)
    assert float(one_token(1.50, 1.0, clip_high=0.28)[0]) == pytest.approx(-1.28)
    assert float(one_token(0.50, -1.0, clip_high=0.28)[0]) == pytest.approx(0.8)


def test_two_rows_by_hand_in_every_aggregate():
    # Row 1: three tokens of ratio 1, A = 1. Row 2: one token of ratio 1, A = -2. Per-token losses -1 -1 -1 | 2.
    logp = jnp.zeros((2, 3))
    mask = jnp.array([[1, 1, 1], [0, 1, 0]])
    whole = totals(mask, max_tokens=4)

    def loss(aggregate):
        return float(
            policy_loss(config(aggregate=aggregate), logp, logp, logp, jnp.array([1.0, -2.0]), mask, whole=whole)[0]
        )

    assert loss("token_mean") == pytest.approx(-1 / 4)
    assert loss("sequence_mean") == pytest.approx((-1 + 2) / 2)
    assert loss("constant") == pytest.approx(-1 / 8)


def test_k3_kl_entropy_and_importance_weight_by_hand():
    new = jnp.full((1, 1), LOG(0.5))
    ref, sampler = jnp.full((1, 1), LOG(0.25)), jnp.full((1, 1), LOG(0.125))
    k3 = 0.5 - LOG(0.5) - 1  # ref/new - log(ref/new) - 1
    options = config(kl=0.1, entropy=0.01, tis_cap=2.0)
    loss, metrics = policy_loss(
        options,
        new,
        new,
        ref,
        jnp.ones(1),
        jnp.ones((1, 1)),
        entropy_BT=jnp.full((1, 1), 0.7),
        sampler_logprobs_BT=sampler,
    )
    # old/sampler = 4, capped at 2
    np.testing.assert_allclose(loss, -2.0 + 0.1 * k3 - 0.01 * 0.7, rtol=1e-6)
    np.testing.assert_allclose(metrics["kl"], k3, rtol=1e-6)
    np.testing.assert_allclose(metrics["entropy"], 0.7, rtol=1e-6)
    np.testing.assert_allclose(metrics["mismatch_mean"], LOG(4), rtol=1e-6)
    np.testing.assert_allclose(metrics["mismatch_max"], LOG(4), rtol=1e-6)


def test_p99_of_the_mismatch_is_that_of_the_response_tokens():
    sizes = np.random.default_rng(0).permutation(np.arange(1, 201) / 1000).reshape(2, 100)
    mask = np.ones((2, 102), np.float32)
    mask[:, :2] = 0  # a huge difference in the prompt plays no part
    sampler = jnp.asarray(np.concatenate([np.full((2, 2), -99.0), -sizes], axis=1))
    same = jnp.zeros((2, 102))
    _, metrics = policy_loss(config(), same, same, same, jnp.ones(2), jnp.asarray(mask), sampler_logprobs_BT=sampler)
    np.testing.assert_allclose(metrics["mismatch_p99"], 0.198, rtol=1e-5)  # 198 of 200 are no larger
    np.testing.assert_allclose(metrics["mismatch_max"], 0.2, rtol=1e-5)
    nothing = policy_loss(config(), same, same, same, jnp.ones(2), jnp.zeros((2, 102)), sampler_logprobs_BT=sampler)[1]
    assert float(nothing["mismatch_p99"]) == 0.0


def reference(options, new, old, ref, advantages, mask, entropy, sampler, max_tokens):
    """The same loss in float64, row by row and token by token."""
    rows = []
    for b in range(len(new)):
        at = np.flatnonzero(mask[b])
        if len(at) == 0:
            continue
        whole_row = np.exp(np.mean([new[b, t] - old[b, t] for t in at]))
        losses = []
        for t in at:
            s = whole_row if options.ratio == "sequence" else np.exp(new[b, t] - old[b, t])
            held = min(max(s, 1 - options.clip_low), 1 + options.clip_high)
            loss = -min(s * advantages[b], held * advantages[b])
            if options.tis_cap:
                loss *= min(np.exp(old[b, t] - sampler[b, t]), options.tis_cap)
            gap = ref[b, t] - new[b, t]
            losses.append(loss + options.kl * (np.exp(gap) - gap - 1) - options.entropy * entropy[b, t])
        rows.append(losses)
    if options.aggregate == "token_mean":
        return np.mean(np.concatenate(rows))
    if options.aggregate == "sequence_mean":
        return np.mean([np.mean(row) for row in rows])
    return sum(map(sum, rows)) / (len(rows) * max_tokens)


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    shape = (6, 7)
    old = rng.normal(-2, 0.5, shape)
    mask = (rng.random(shape) < 0.6).astype(np.float64)
    mask[2] = 0  # a row that has no response
    return {
        "new": old + rng.normal(0, 0.3, shape),
        "old": old,
        "ref": old + rng.normal(0, 0.3, shape),
        "advantages": rng.normal(size=6),
        "mask": mask,
        "entropy": rng.random(shape),
        "sampler": old + rng.normal(0, 0.3, shape),
    }


def ours(options, rows, whole=None, pick=slice(None)):
    part = {name: jnp.asarray(value[pick], jnp.float32) for name, value in rows.items()}
    return policy_loss(
        options,
        part["new"],
        part["old"],
        part["ref"],
        part["advantages"],
        part["mask"],
        entropy_BT=part["entropy"],
        sampler_logprobs_BT=part["sampler"],
        whole=whole,
    )


COMBINATIONS = list(
    itertools.product(("token", "sequence"), ("token_mean", "sequence_mean", "constant"), (0.0, 1.1), (0.0, 0.05))
)


@pytest.mark.parametrize(("ratio", "aggregate", "tis_cap", "weight"), COMBINATIONS)
def test_every_option_equals_the_numpy_reference(rows, ratio, aggregate, tis_cap, weight):
    options = config(ratio=ratio, aggregate=aggregate, tis_cap=tis_cap, kl=weight, entropy=weight, clip_high=0.28)
    got = ours(options, rows, totals(jnp.asarray(rows["mask"]), 9))[0]
    np.testing.assert_allclose(got, reference(options, **rows, max_tokens=9), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean", "constant"])
def test_microbatches_add_up_to_the_whole_exactly(rows, aggregate):
    options = config(aggregate=aggregate, kl=0.1, entropy=0.1, tis_cap=1.1)
    whole = totals(jnp.asarray(rows["mask"]), 9)
    loss, metrics = ours(options, rows, whole)
    parts = [ours(options, rows, whole, pick) for pick in (slice(0, 1), slice(1, 3), slice(3, 6))]
    np.testing.assert_allclose(sum(p[0] for p in parts), loss, rtol=1e-5)
    for name, value in metrics.items():
        join = max if name in MAX_METRICS else sum
        np.testing.assert_allclose(join(p[1][name] for p in parts), value, rtol=1e-5, err_msg=name)


def test_groups_without_variance_give_no_policy_gradient(rows):
    advantages, flat = group_advantages([[1, 1, 1], [0, 1, 0]], "grpo")
    assert flat == 1
    args = {name: jnp.asarray(value, jnp.float32) for name, value in rows.items()}

    def loss(new):
        whole = (args["old"], args["ref"], jnp.asarray(advantages.reshape(-1)), args["mask"])
        return policy_loss(config(), new, *whole)[0]

    gradient = jax.grad(loss)(args["new"])
    assert not gradient[:3].any()
    assert gradient[3:].any()


def test_the_importance_weight_carries_no_gradient(rows):
    def loss(old):
        return policy_loss(config(tis_cap=9.0), old, old, old, jnp.ones(1), jnp.ones((1, 2)), sampler_logprobs_BT=s)[0]

    s = jnp.array([[-2.0, -1.0]])
    # ratio = 1 always, and the weight alone would have a gradient
    assert not jax.grad(loss)(jnp.array([[-1.5, -1.2]])).any()


def test_infinities_off_the_mask_reach_neither_loss_nor_gradient(rows):
    bad = {k: np.where(rows["mask"] > 0, v, -np.inf) if v.ndim == 2 and k != "mask" else v for k, v in rows.items()}
    options = config(kl=0.1, entropy=0.1, tis_cap=1.5)
    np.testing.assert_array_equal(ours(options, bad)[0], ours(options, rows)[0])
    gradient = jax.grad(lambda new: ours(options, bad | {"new": new})[0])(jnp.asarray(bad["new"], jnp.float32))
    assert bool(jnp.isfinite(gradient).all())


@pytest.mark.parametrize("options", [{"entropy": 0.1}, {"tis_cap": 2.0}, {"aggregate": "constant"}])
def test_an_option_without_its_input_is_refused(options):
    logp = jnp.zeros((1, 1))
    with pytest.raises(UsageError, match=f"config.loss.{next(iter(options))}"):
        policy_loss(config(**options), logp, logp, logp, jnp.ones(1), jnp.ones((1, 1)))
