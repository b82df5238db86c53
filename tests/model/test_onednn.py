"""Matmuls with packed weights: the product is that of the weights as they were, whatever oneDNN makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.model.test_sampler import BASE, PROMPTS, make_model
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.kernels import onednn
from w2sr_jax.model.kernels.onednn import Packed, matmul, pack, packs
from w2sr_jax.model.sampler import Sampler

# XLA cannot write these programs to the cache that tests keep their programs in.
pytestmark = pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache entry")


def arrays(*shapes):
    return [jax.random.normal(key, shape) for key, shape in zip(jax.random.split(jax.random.key(0), 9), shapes)]


ROWS, D, F = 130, 48, 128  # the tests' eight devices have eight threads, for which fewer rows have other blocks


@pytest.fixture
def weight():
    """[D, F], where this processor's oneDNN reads its blocks."""
    if not onednn._reads(ROWS, D, F):
        pytest.skip("oneDNN reads other blocks on this processor, or XLA's client has none")
    return arrays((D, F))[0]


def test_the_product_is_that_of_the_weights_before_they_were_packed(weight, monkeypatch):
    monkeypatch.setattr(onednn, "PROBES", (ROWS,))
    packed, (x,) = pack(weight), arrays((ROWS, D))
    assert (packed.shape, packed.dtype) == ((D, F), jnp.float32)
    np.testing.assert_array_equal(packed.unpacked(), weight)
    program = jax.jit(matmul).lower(x, packed).compile()
    assert onednn.TARGET in program.as_text()
    np.testing.assert_allclose(program(x, packed), x @ weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 64])
def test_whether_or_not_some_rows_have_other_blocks_the_product_is_the_same(weight, rows):
    (x,) = arrays((rows, D))
    found = matmul(x, Packed(onednn._blocks(weight)))
    assert found.shape == (rows, F)
    np.testing.assert_allclose(found, x @ weight, rtol=1e-4, atol=1e-4)


def test_one_row_too_goes_through_onednn(weight):
    (x,), weight = arrays((1, D)), weight[:, : onednn.COLUMNS]
    assert onednn._reads(onednn.LEAST_ROWS, *weight.shape)  # one block is as the matrix itself
    np.testing.assert_allclose(matmul(x, pack(weight)), x @ weight, rtol=1e-4, atol=1e-4)


def test_blocks_in_another_order_and_a_client_without_onednn_are_found_out(weight, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(onednn, "_blocks", lambda weight: weight.reshape(2, D, 64))  # rows, not columns, in blocks
        assert not onednn._reads.__wrapped__(ROWS, D, F)
    with monkeypatch.context() as patch:
        patch.setattr(onednn, "TARGET", "__no_such$matmul")
        assert not onednn._reads.__wrapped__(ROWS + 1, D, F)  # which is compiled anew
    monkeypatch.setattr(onednn, "_reads", lambda rows, D, F: rows != 64)
    assert pack(weight) is weight, "one of the probes has other blocks"


@pytest.mark.parametrize(
    ("shape", "dtype", "largest"),
    [((48, 100), "float32", 1 << 26), ((48, 128), "bfloat16", 1 << 26), ((48, 128), "float32", 99)],
)
def test_other_matrices_stay_as_they_are(shape, dtype, largest, monkeypatch):
    monkeypatch.setattr(onednn, "LARGEST", largest)
    weight = jnp.ones(shape, dtype)
    assert pack(weight) is weight
    assert matmul(jnp.ones((2, 48), dtype), weight, jnp.float32).dtype == jnp.float32


def test_small_models_and_those_whose_programs_are_to_be_kept_are_not_packed():
    assert not packs(onednn.WORTH), "the tests keep their programs"
    kept = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert packs(onednn.WORTH)
        assert not packs(onednn.WORTH - 1)
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)


def test_a_sampler_of_packed_weights_gives_the_same_tokens(weight, monkeypatch):
    config = ModelConfig(**BASE | {"hidden_size": 64, "intermediate_size": 64, "num_heads": 8, "vocab_size": 64})
    monkeypatch.setattr(onednn, "PROBES", (onednn.LEAST_ROWS,))
    params, found = nnx.state(make_model(config)), []
    for packed in (False, True):
        monkeypatch.setattr(onednn, "packs", lambda elements, packed=packed: packed)
        sampler = Sampler(config, jnp.float32)
        weights = sampler.prepare(params)
        matrices = [weights.head, *(w[name] for w in weights.layers for name in ("o", "down"))]
        assert {isinstance(matrix, Packed) for matrix in matrices} == {packed}
        options = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "stop_token_ids": ()}
        streams = [(index, 0) for index in range(len(PROMPTS))]
        found.append(sampler.sample(weights, PROMPTS, streams, [12] * 4, batch=4, copies=1, **options))
    for plain, packed in zip(*found, strict=True):
        assert plain.token_ids == packed.token_ids
        np.testing.assert_allclose(plain.logprobs, packed.logprobs, atol=1e-4)
