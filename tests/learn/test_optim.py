"""The schedule, and AdamW against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from w2sr_jax.core.config import OptimizerConfig, validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.learn.optim import decay_mask, learning_rate, make_optimizer


def rates(total, **fields):
    config = OptimizerConfig(learning_rate=2.0, **fields)
    return [learning_rate(config, step, total) for step in range(total)]


def test_the_warm_up_rises_linearly_and_ends_at_the_peak():
    assert rates(10, warmup_ratio=0.4, schedule="constant") == [0.5, 1.0, 1.5, 2.0] + [2.0] * 6


def test_the_schedules_fall_to_the_final_fraction():
    np.testing.assert_allclose(rates(4, warmup_ratio=0.0, schedule="linear", final_fraction=0.5), [2, 1.75, 1.5, 1.25])
    np.testing.assert_allclose(rates(4, warmup_ratio=0.0), 1 + np.cos(np.pi * np.arange(4) / 4))
    config = OptimizerConfig(learning_rate=2.0, final_fraction=0.1)
    assert learning_rate(config, 10, 10) == pytest.approx(0.2)
    assert learning_rate(config, 11, 10) == pytest.approx(0.2)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("total", [1, 2, 5, 40])
def test_no_update_has_rate_zero_or_above_the_peak(schedule, total):
    assert all(0 < rate <= 2.0 for rate in rates(total, schedule=schedule, warmup_ratio=0.1))


def test_weight_decay_spares_norms_and_biases_although_they_are_stacked(model):
    _, params = model(tie_embeddings=False)
    decayed = {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(decay_mask(params))[0]
    }
    names = {name for name, leaf in decayed.items() if leaf}
    assert not any("norm" in name or "bias" in name for name in names)
    matrices = ("embed", "lm_head", "'q'", "'k'", "'v'", "'o'", "gate", "up", "down")
    assert len(names) == len(matrices)
    assert all(any(matrix in name for name in names) for matrix in matrices)


def test_two_updates_follow_adamw_with_clipping():
    rng = np.random.default_rng(0)
    config = OptimizerConfig(weight_decay=0.1, clip_norm=0.5, b1=0.9, b2=0.99, eps=1e-6)
    weight = rng.normal(size=(3, 2))
    params = {"w": nnx.Param(jnp.asarray(weight, jnp.float32), logical_axes=("embed", "mlp"))}
    optimizer = make_optimizer(config)
    state, first, second = optimizer.init(params), np.zeros((3, 2)), np.zeros((3, 2))
    for count in (1, 2):
        grad = rng.normal(size=(3, 2))
        updates, state = optimizer.update({"w": params["w"].replace(jnp.asarray(grad, jnp.float32))}, state, params)
        grad = grad * min(1.0, 0.5 / np.linalg.norm(grad))
        first, second = 0.9 * first + 0.1 * grad, 0.99 * second + 0.01 * grad**2
        adam = (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.99**count)) + 1e-6)
        np.testing.assert_allclose(updates["w"].get_value(), adam + 0.1 * weight, rtol=1e-4)


def test_moments_are_float32(model):
    moments = make_optimizer(OptimizerConfig()).init(model()[1])
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(moments)} == {"float32", "int32"}


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "most", "beyond"), [("b1", 1 - 1e-6, 1.0), ("b2", 1 - 1e-6, 1.0), ("eps", 1e-30, 0.0)]
)
def test_no_value_that_is_allowed_divides_by_zero(name, most, beyond, moments):
    with pytest.raises(UsageError, match=f"config.{name}: must be at"):
        validate(OptimizerConfig(**{name: beyond}))
    config = OptimizerConfig(moments=moments, clip_norm=0.0, **{name: most})
    validate(config)
    optimizer, params = make_optimizer(config), {"w": jnp.ones(3)}
    updates, _ = optimizer.update({"w": jnp.array([0.1, 0.0, 0.3])}, optimizer.init(params), params)
    assert np.isfinite(updates["w"]).all()
