"""Training follows one trajectory whatever the mesh (8 fake devices)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.core.config import MeshConfig, OptimizerConfig
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.core.stage_config import GRPOLossConfig
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.state import init_state, shard_batch, tree_shardings
from w2sr_jax.learn.step import make_grpo_step, make_logprob_fn, make_sft_step

OPTIMIZER = OptimizerConfig(weight_decay=0.01)
RATE = 1e-3


def start(params, mesh):
    params = jax.tree.map(jnp.copy, params)
    if mesh is not None:
        params = jax.device_put(params, tree_shardings(params, mesh))
    return init_state(params, make_optimizer(OPTIMIZER), mesh)


def follow(step, params, batches, mesh):
    state, seen = start(params, mesh), []
    for batch in batches:
        state, metrics = step(state, batch if mesh is None else shard_batch(batch, mesh), RATE)
        seen.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(seen), state


def assert_same(single, sharded):
    np.testing.assert_allclose(sharded[0], single[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(single[1].params), jax.tree.leaves(sharded[1].params)):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@pytest.fixture
def meshed():
    return lambda sizes: make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes))))


@pytest.mark.parametrize(("sizes", "accum"), [((1, 8, 1), 1), ((2, 2, 2), 2), ((1, 2, 4), 1)])
def test_sft_on_a_mesh_follows_the_single_device(model, packed_batch, train, meshed, sizes, accum):
    graphdef, params = model()
    batches = [packed_batch(seed) for seed in range(5)]
    mesh = meshed(sizes)
    single = follow(make_sft_step(graphdef, OPTIMIZER, train()), params, batches, None)
    step = make_sft_step(graphdef, OPTIMIZER, train(grad_accum=accum), mesh)
    sharded = follow(step, params, batches, mesh)
    assert_same(single, sharded)
    assert step._cache_size() == 1
    wanted = tree_shardings(sharded[1], mesh)
    for leaf, sharding in zip(jax.tree.leaves(sharded[1]), jax.tree.leaves(wanted)):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_grpo_on_a_mesh_follows_the_single_device(model, rollout, train, meshed):
    graphdef, params = model()
    batches, loss, mesh = [rollout(seed) for seed in range(3)], GRPOLossConfig(kl=0.1), meshed((2, 2, 2))
    single = follow(make_grpo_step(graphdef, OPTIMIZER, loss, train()), params, batches, None)
    sharded = follow(make_grpo_step(graphdef, OPTIMIZER, loss, train(grad_accum=2), mesh), params, batches, mesh)
    assert_same(single, sharded)
    here = make_logprob_fn(graphdef, train())(params, batches[0])
    there = make_logprob_fn(graphdef, train(grad_accum=2), mesh)(
        start(params, mesh).params, shard_batch(batches[0], mesh)
    )
    np.testing.assert_allclose(there, here, rtol=1e-5)


def test_a_batch_that_does_not_split_over_the_mesh_is_refused(model, packed_batch, train, meshed):
    graphdef, params = model()
    mesh = meshed((1, 8, 1))
    with pytest.raises(UsageError, match="batch of 4 rows does not split over data x fsdp = 8"):
        make_sft_step(graphdef, OPTIMIZER, train(), mesh)(start(params, mesh), packed_batch(0, 4), 1e-2)


def test_a_parameter_that_the_mesh_does_not_divide_is_named(model, meshed):
    _, params = model(hidden_size=12)
    with pytest.raises(W2SRError, match=r"embed: dimension 'embed' of shape \(32, 12\)"):
        tree_shardings(params, meshed((1, 8, 1)))
