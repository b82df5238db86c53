"""Scan, remat, unrolling, the cache and packing change how the decoder runs, never what it computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from w2sr_jax.model import kv_cache
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.kv_cache import Cache
from w2sr_jax.model.params import abstract_params, param_specs
from w2sr_jax.model.remat import POLICIES
from w2sr_jax.model.unrolled import decode, unroll

CONFIG = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    tie_embeddings=True,
)


def tokens(batch: int, length: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, CONFIG.vocab_size, (batch, length)))


@functools.cache
def value_and_grad(**options):
    graphdef, params = nnx.split(Decoder(CONFIG, rngs=nnx.Rngs(0), **options))

    def loss(params):
        model = nnx.merge(graphdef, params)
        return jnp.sum(jax.nn.log_softmax(model.logits(model(tokens(2, 9))))[..., 3])

    value, grad = jax.jit(jax.value_and_grad(loss))(params)
    return value, nnx.to_pure_dict(grad)


@pytest.mark.parametrize(
    ("scan_layers", "remat"), [(False, "none"), (False, "full"), *((True, name) for name in POLICIES if name != "none")]
)
def test_scanned_unrolled_and_rematerialised_layers_give_the_same_loss_and_gradient(scan_layers, remat):
    expected, got = value_and_grad(), value_and_grad(scan_layers=scan_layers, remat=remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_prefill_and_decode_with_a_cache_equal_the_full_forward_pass_of_left_padded_rows(scan_layers, monkeypatch):
    monkeypatch.setattr(kv_cache, "TILE", 4)
    model = Decoder(CONFIG, rngs=nnx.Rngs(0), scan_layers=scan_layers)
    tokens_BT, lengths = tokens(3, 12), np.array([12, 9, 4])
    positions = jnp.arange(12) - (12 - lengths)[:, None]
    segments = (positions >= 0).astype(jnp.int32)
    expected = model(tokens_BT, positions, segments)

    expected = model.logits(expected)
    cache = model.prefill(tokens_BT[:, :8], positions[:, :8], segments[:, :8]).grow(16)
    first = jnp.array(12 - lengths, jnp.int32)
    step = nnx.jit(lambda model, tokens, cache, slot: model.decode(tokens, cache, first, slot))
    graphdef, params = nnx.split(model)
    by_layer, weights = Cache(tuple(cache.k), tuple(cache.v)), unroll(graphdef, params)
    tiled = Cache(tuple(k.reshape(*k.shape[:3], 4, 4).swapaxes(2, 3) for k in cache.k), tuple(cache.v))
    for slot in range(8, 12):
        logits, cache = step(model, tokens_BT[:, slot], cache, jnp.int32(slot))
        np.testing.assert_allclose(logits, expected[:, slot], atol=2e-5)
        logits, by_layer = decode(CONFIG, weights, tokens_BT[:, slot], by_layer, first, jnp.int32(slot))
        np.testing.assert_allclose(logits, expected[:, slot], atol=2e-5)
        logits, tiled = decode(CONFIG, weights, tokens_BT[:, slot], tiled, first, jnp.int32(slot))
        np.testing.assert_allclose(logits, expected[:, slot], atol=2e-5)
    for stacked, layers in ((cache.k, by_layer.k), (cache.v, by_layer.v)):
        np.testing.assert_allclose(stacked, jnp.stack(layers), atol=2e-5)


def test_a_packed_row_gives_every_sequence_what_it_gets_alone():
    model = Decoder(CONFIG, rngs=nnx.Rngs(0))
    row, lengths = tokens(1, 10), [4, 5]
    segments = jnp.array([[1, 1, 1, 1, 2, 2, 2, 2, 2, 0]])
    positions = jnp.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0]])
    packed = model(row, positions, segments)
    alone = [model(row[:, :4]), model(row[:, 4:9])]
    np.testing.assert_allclose(packed[:, : sum(lengths)], jnp.concatenate(alone, axis=1), atol=1e-5)


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    model = Decoder(CONFIG, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    exact = Decoder(CONFIG, rngs=nnx.Rngs(0))
    hidden = model(tokens(2, 9))
    assert hidden.dtype == jnp.bfloat16
    assert model.logits(hidden).dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model)))
    np.testing.assert_allclose(hidden.astype(jnp.float32), exact(tokens(2, 9)), atol=0.1)


@pytest.mark.parametrize("tied", [True, False])
def test_the_abstract_parameters_are_those_of_the_model_with_an_axis_name_for_every_dimension(tied):
    config = ModelConfig(**{n: getattr(CONFIG, n) for n in CONFIG.__slots__} | {"tie_embeddings": tied})
    _, params = nnx.split(Decoder(config, rngs=nnx.Rngs(0)))
    abstract = abstract_params(config)
    assert jax.tree.structure(abstract) == jax.tree.structure(params)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, abstract)
    for _, param in nnx.to_flat_state(abstract):
        assert len(param.get_metadata("logical_axes")) == len(param.get_value().shape)
    D, F, V, L = 32, 48, 64, 3
    layer = 2 * D * 32 + 2 * D * 16 + 32 + 2 * 16 + 3 * D * F + 2 * D
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == V * D * (1 if tied else 2) + D + L * layer


def test_initial_values_are_normal_with_smaller_residual_projections_zero_biases_and_unit_norms():
    model = Decoder(CONFIG, rngs=nnx.Rngs(0))
    outer, layers = param_specs(CONFIG)
    for name, spec in (outer | layers).items():
        value = np.asarray(model.param(name)[...])
        if spec.std is None:
            assert (value == (1 if "norm" in name else 0)).all(), name
        else:
            assert value.std() == pytest.approx(0.02 / (6**0.5 if name in ("o", "down") else 1), rel=0.1), name
