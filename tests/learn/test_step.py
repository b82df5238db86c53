"""The jitted steps: exact accumulation, packing, on-policy ratio, one compilation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.learn.conftest import CONFIG
from w2sr_jax.core import mesh
from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import GRPOLossConfig
from w2sr_jax.learn import chunked, step
from w2sr_jax.learn.losses import nll_sum
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.state import init_state
from w2sr_jax.learn.step import make_grpo_step, make_logprob_fn, make_sft_step
from w2sr_jax.model.decoder import Decoder

OPTIMIZER = OptimizerConfig(weight_decay=0.01)


def follow(step, params, batches, lr=1e-3):
    """Losses and gradient norms (Adam alone would hide a wrong scale) and the last state of a run."""
    state, seen = init_state(jax.tree.map(jnp.copy, params), make_optimizer(OPTIMIZER)), []
    for batch in batches:
        state, metrics = step(state, batch, lr)
        seen.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    assert int(state.step) == len(batches)
    return np.array(seen), state


def assert_same_trajectory(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one[1].params), jax.tree.leaves(other[1].params)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@functools.partial(jax.jit, static_argnums=(0, 3))
def dense_logprobs(graphdef, params, batch, temperature=1.0):
    decoder = nnx.merge(graphdef, params)
    logits = decoder.logits(decoder(batch.tokens_BT, batch.positions_BT, batch.segment_ids_BT)) / temperature
    return jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets_BT[..., None], -1)[..., 0]


def test_any_split_of_the_batch_into_microbatches_follows_one_trajectory(model, packed_batch, train):
    graphdef, params = model()
    batches = [packed_batch(seed) for seed in range(5)]
    runs = {
        accum: follow(make_sft_step(graphdef, OPTIMIZER, train(grad_accum=accum)), params, batches)
        for accum in (1, 2, 8)
    }
    assert_same_trajectory(runs[1], runs[2])
    assert_same_trajectory(runs[1], runs[8])


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("bfloat16", 3e-3)])
def test_what_a_gpu_computes_otherwise_follows_the_same_trajectory(
    monkeypatch, model, packed_batch, train, dtype, rtol
):
    params = model()[1]
    graphdef = nnx.split(Decoder(CONFIG, rngs=nnx.Rngs(0), dtype=jnp.dtype(dtype)))[0]
    batches = [packed_batch(seed) for seed in range(5)]

    def run():
        step._sft_step.cache_clear()
        return follow(make_sft_step(graphdef, OPTIMIZER, train(grad_accum=4)), params, batches)[0]

    plain, jaxpr = run(), str(jax.make_jaxpr(lambda x: chunked._Group(None).logz(x))(jnp.zeros((1, 2, 8))))
    monkeypatch.setattr(mesh, "platform", lambda _: "gpu")
    assert str(jax.make_jaxpr(lambda x: chunked._Group(None).logz(x))(jnp.zeros((1, 2, 8)))) != jaxpr
    np.testing.assert_allclose(run(), plain, rtol=rtol)
    step._sft_step.cache_clear()


def test_any_split_of_a_rollout_follows_one_trajectory(model, rollout, train):
    graphdef, params = model()
    batches, loss = [rollout(seed) for seed in range(3)], GRPOLossConfig(kl=0.1)
    whole, split = (
        follow(make_grpo_step(graphdef, OPTIMIZER, loss, train(grad_accum=accum)), params, batches) for accum in (1, 4)
    )
    assert_same_trajectory(whole, split)


def test_the_step_loss_is_the_dense_mean_over_masked_targets(model, packed_batch, train):
    graphdef, params = model(tie_embeddings=False)
    batch = packed_batch()
    nll = -dense_logprobs(graphdef, params, batch)
    expected = float(jnp.sum(nll * batch.loss_mask_BT) / batch.loss_mask_BT.sum())
    state = init_state(params, make_optimizer(OPTIMIZER))
    _, metrics = make_sft_step(graphdef, OPTIMIZER, train())(state, batch, 0.0)
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["tokens"]) == batch.loss_mask_BT.sum()
    assert float(metrics["grad_norm"]) > 0


def test_a_packed_batch_gives_the_same_loss_as_its_sequences_alone(model, packed_batch):
    graphdef, params = model()
    packed = packed_batch()

    @jax.jit
    def loss(tokens, targets, mask, *where):
        decoder = nnx.merge(graphdef, params)
        return nll_sum(decoder(tokens, *where), decoder.head(), targets, mask, 5)[0]

    together = loss(
        packed.tokens_BT, packed.targets_BT, packed.loss_mask_BT, packed.positions_BT, packed.segment_ids_BT
    )
    alone = 0.0
    for segment in (1, 2):
        columns = np.flatnonzero(packed.segment_ids_BT[0] == segment)
        alone += loss(packed.tokens_BT[:, columns], packed.targets_BT[:, columns], packed.loss_mask_BT[:, columns])
    assert float(together) == pytest.approx(float(alone), rel=1e-5)


def test_padding_on_the_right_changes_nothing_where_a_row_has_one_example(model, rollout, train):
    graphdef, params = model()
    segments = (np.arange(12) < np.arange(5, 13)[:, None]).astype(np.int32)
    batches = [
        dataclasses.replace(batch, segment_ids_BT=segments, loss_mask_BT=batch.loss_mask_BT * segments)
        for batch in map(rollout, range(3))
    ]
    apart, causal = (
        follow(make_sft_step(graphdef, OPTIMIZER, train(), None, most), params, batches) for most in (0, 1)
    )
    assert_same_trajectory(apart, causal)
    dense = dense_logprobs(graphdef, params, batches[0]) * batches[0].loss_mask_BT
    np.testing.assert_allclose(make_logprob_fn(graphdef, train())(params, batches[0]), dense, rtol=1e-5)


def test_on_policy_the_ratio_is_one(model, rollout, train, fresh):
    graphdef, params = model()
    for accum in (1, 4):
        config, batch = train(grad_accum=accum), rollout()
        old = make_logprob_fn(graphdef, config)(params, batch)
        assert not np.asarray(old)[batch.loss_mask_BT == 0].any()
        batch = dataclasses.replace(batch, old_logprobs_BT=old, ref_logprobs_BT=old, sampler_logprobs_BT=old)
        step = make_grpo_step(graphdef, OPTIMIZER, GRPOLossConfig(kl=0.1), config)
        _, metrics = step(init_state(fresh(params), make_optimizer(OPTIMIZER)), batch, 1e-2)
        assert float(metrics["ratio_mean"]) == pytest.approx(1, abs=1e-5)
        assert float(metrics["clip_fraction"]) == 0
        assert float(metrics["kl"]) == pytest.approx(0, abs=1e-5)
        assert float(metrics["mismatch_max"]) == pytest.approx(0, abs=1e-5)
        assert float(metrics["grad_norm"]) > 0


def test_the_on_policy_step_equals_the_step_with_recomputed_old_logprobs(model, rollout, train):
    graphdef, params = model()
    batch, config, loss = rollout(), train(), GRPOLossConfig(kl=0.1)
    given = dataclasses.replace(batch, old_logprobs_BT=make_logprob_fn(graphdef, config)(params, batch))
    usual = follow(make_grpo_step(graphdef, OPTIMIZER, loss, config), params, [given])
    short = follow(make_grpo_step(graphdef, OPTIMIZER, loss, config, on_policy=True), params, [batch])
    assert_same_trajectory(usual, short)


def test_logprobs_do_not_depend_on_microbatches_and_follow_the_temperature(model, rollout, train):
    graphdef, params = model()
    batch = rollout()
    whole = make_logprob_fn(graphdef, train())(params, batch)
    np.testing.assert_allclose(whole, make_logprob_fn(graphdef, train(grad_accum=4))(params, batch), rtol=1e-5)
    dense = dense_logprobs(graphdef, params, batch, 0.5)
    warm = make_logprob_fn(graphdef, train(), temperature=0.5)(params, batch)
    np.testing.assert_allclose(warm, dense * batch.loss_mask_BT, rtol=1e-5)


def test_equal_arguments_share_one_step_and_one_compilation(model, packed_batch, train, fresh):
    (graphdef, params), (again, other_params) = model(), model()
    step = make_sft_step(graphdef, OptimizerConfig(learning_rate=1e-3), train(loss_chunk=6))
    same = make_sft_step(again, OptimizerConfig(learning_rate=2e-3, schedule="linear"), train(loss_chunk=6))
    assert step is same
    for start, lr in ((params, 1e-3), (other_params, 2e-3)):
        state = init_state(fresh(start), make_optimizer(OptimizerConfig()))
        for seed in range(2):
            state, _ = step(state, packed_batch(seed), lr)
    assert step._cache_size() == 1
    assert make_sft_step(graphdef, OptimizerConfig(b1=0.5), train(loss_chunk=6)) is not step


def test_the_first_step_takes_the_parameters_over(model, packed_batch, train):
    graphdef, params = model()
    state = init_state(params, make_optimizer(OPTIMIZER))
    make_sft_step(graphdef, OPTIMIZER, train())(state, packed_batch(), 1e-3)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def test_rows_that_do_not_split_are_refused_in_one_line(model, packed_batch, train):
    graphdef, params = model()
    state = init_state(params, make_optimizer(OPTIMIZER))
    with pytest.raises(UsageError, match=r"config.train.grad_accum: 8 rows do not split into 3 microbatches"):
        make_sft_step(graphdef, OPTIMIZER, train(grad_accum=3))(state, packed_batch(), 1e-3)


def test_options_that_contradict_each_other_are_refused(model, train):
    graphdef, _ = model()
    with pytest.raises(UsageError, match="max_tokens"):
        make_grpo_step(graphdef, OPTIMIZER, GRPOLossConfig(aggregate="constant"), train())
    with pytest.raises(UsageError, match="temperature"):
        make_grpo_step(graphdef, OPTIMIZER, GRPOLossConfig(tis_cap=2.0), train(), temperature=0.7)
