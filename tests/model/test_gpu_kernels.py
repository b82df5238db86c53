"""What only GPUs run: cuDNN's attention over packed rows, and attention of one token over the cache.

Without a GPU the kernel of decoding is interpreted, and cuDNN's part is played by what its documentation says it does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.model.test_kernels import errors, exact, inputs, packed, value_and_gradients
from w2sr_jax.model import unrolled
from w2sr_jax.model.attention import attention as dense
from w2sr_jax.model.attention import decode_attention as decode_plainly
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.kernels import choice, cudnn, decode, layout

ON_GPU = jax.default_backend() == "gpu"
ENDS = (100, 130, 250)  # of 256 tokens: three examples, and padding


def by_documentation(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type):
    """Each sequence by itself: it begins where q_offsets say, and has q_seqlen tokens; -1 is none. What no sequence
    covers is not written: NaN."""
    assert mask_type == cudnn.kernels.MaskType.PADDING_CAUSAL
    assert kv_seqlen is q_seqlen
    assert kv_offsets is q_offsets
    assert q_offsets.shape == (q.shape[0], q_seqlen.shape[1] + 1)
    rows, out = [], jnp.full(q.shape, jnp.nan, q.dtype)
    for b in range(q.shape[0]):
        for begin, size in zip(q_offsets[b].tolist(), q_seqlen[b].tolist()):
            if size < 0:
                assert begin < 0
                continue
            here = slice(begin, begin + size)
            rows.append((b, here))
            one = exact(q[b, here][None], k[b, here][None], v[b, here][None], jnp.ones((1, size), jnp.int32))
            out = out.at[b, here].set(one[0].astype(q.dtype))
    return out


def test_cudnn_is_told_of_every_example_and_of_padding(monkeypatch):
    monkeypatch.setattr(cudnn.kernels, "dot_product_attention", by_documentation)
    *arrays, _ = inputs(2, 256, 4, 2, 64)
    segments = packed(2, 256, ENDS).at[1].set(1)  # the second row has one example
    got = cudnn.cudnn_attention(*arrays, segments, None, row_examples=4)
    np.testing.assert_allclose(got, exact(*arrays, segments), atol=1e-5)
    assert jnp.all(jnp.isfinite(cudnn.cudnn_attention(*arrays, segments, None, row_examples=9)))


def test_a_row_with_more_examples_than_were_promised_is_no_number(monkeypatch):
    monkeypatch.setattr(cudnn.kernels, "dot_product_attention", lambda q, k, v, **_: q)
    *arrays, _ = inputs(1, 256, 4, 2, 64)
    assert jnp.all(jnp.isnan(cudnn.cudnn_attention(*arrays, packed(1, 256, ENDS), None, row_examples=3)))


def test_places_are_where_segments_change():
    segments = jnp.asarray([[1, 1, 2, 3, 3, 0], [4, 4, 4, 4, 4, 4]])
    starts, lengths, fit = cudnn.places(segments, 4)
    assert starts.tolist() == [[0, 2, 3, 5, -1], [0, -1, -1, -1, -1]]
    assert lengths.tolist() == [[2, 1, 2, 1], [6, -1, -1, -1]]
    assert bool(fit)
    assert not bool(cudnn.places(segments, 3)[2])


def test_a_hopper_gpu_gets_cudnn_where_it_can_be_taken(monkeypatch, caplog):
    shape = (1, 256, 4, 64)
    monkeypatch.setattr(choice, "platform", lambda mesh: "gpu")
    assert choice.pick("auto", shape, 2, None, jnp.bfloat16, 4) == "flash"
    monkeypatch.setattr(choice, "on_hopper", lambda mesh: True)
    assert choice.pick("auto", shape, 2, None, jnp.bfloat16, 4) == "cudnn"
    assert choice.pick("auto", shape, 2, None, jnp.bfloat16, 0) == "flash"
    assert choice.pick("auto", shape, 2, None, jnp.float32, 4) == "flash"
    choice._say.cache_clear()
    with caplog.at_level("WARNING", logger="absl"):
        assert choice.pick("cudnn", shape, 2, None, jnp.float32, 4) == "dense"
    assert "dense attention instead of cudnn: cuDNN knows no float32" in caplog.text


def test_programs_are_compiled_for_few_bounds_and_for_none_where_none_is_used(monkeypatch):
    assert [choice.row_examples_bound(n, None) for n in (0, 1)] == [0, 1]
    assert [choice.row_examples_bound(n, None) for n in (2, 5)] == ([2, 6] if ON_GPU else [0, 0])
    monkeypatch.setattr(choice, "platform", lambda mesh: "gpu")
    assert [choice.row_examples_bound(n, None) for n in (0, 1, 2, 3, 4, 11)] == [0, 1, 2, 4, 4, 12]


@pytest.mark.skipif(not layout.on_hopper(None), reason="needs a Hopper GPU")
@pytest.mark.parametrize("width", [64, 128])
def test_cudnn_errs_by_less_than_one_rounding(width):
    *arrays, do = inputs(2, 2048, 6, 2, width, jnp.bfloat16)
    segments = packed(2, 2048, (500, 501, 2000))
    want = value_and_gradients(lambda q, k, v: exact(q, k, v, segments), *arrays, do)
    found, plain = (
        errors(value_and_gradients(jax.jit(lambda q, k, v, f=form: f(q, k, v)), *arrays, do), want)
        for form in (
            lambda q, k, v: choice.attention(q, k, v, segment_ids_BT=segments, form="cudnn", row_examples=4),
            lambda q, k, v: dense(q, k, v, segment_ids_BT=segments),
        )
    )
    print(width, found, plain)
    assert max(found) < 2.0**-8
    assert found[0] < 1.02 * plain[0]


def decode_inputs(rows, heads, kv_heads, width, slots, dtype=jnp.float32):
    rng = np.random.default_rng(slots)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    new = draw(rows, heads, width), draw(rows, kv_heads, width), draw(rows, kv_heads, width)
    cache = draw(rows, kv_heads, width, slots), draw(rows, kv_heads, slots, width)
    return *new, *cache, jnp.asarray(rng.integers(0, 70, rows), jnp.int32)


def after_an_update(q, k, v, keys, values, first, slot):
    """What the kernel does, in three steps."""
    keys = jax.lax.dynamic_update_slice(keys, k[..., None].astype(keys.dtype), (0, 0, 0, slot))
    values = jax.lax.dynamic_update_slice(values, v[:, :, None].astype(values.dtype), (0, 0, slot, 0))
    return decode_plainly(q, keys, values, first, slot), keys, values


@pytest.mark.parametrize(("heads", "width", "slot"), [(12, 128, 70), (14, 64, 127), (4, 64, 128), (2, 128, 191)])
def test_the_kernel_of_decoding_equals_an_update_and_plain_attention(heads, width, slot):
    *arrays, first = decode_inputs(8, heads, 2, width, 192)
    kernel = jax.jit(functools.partial(decode.decode_attention, interpret=not ON_GPU))
    (out, *cache), (want, *want_cache) = (f(*arrays, first, jnp.int32(slot)) for f in (kernel, after_an_update))
    np.testing.assert_allclose(out, want, atol=2e-6 if not ON_GPU else 1e-2)
    for got, expected in zip(cache, want_cache, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_row_that_begins_with_its_new_token_sees_nothing_else():
    *arrays, _ = decode_inputs(8, 4, 2, 64, 64)
    first = jnp.full(8, 5, jnp.int32)
    out, *_ = decode.decode_attention(*arrays, first, jnp.int32(5), interpret=not ON_GPU)
    np.testing.assert_allclose(out.reshape(8, 2, 2, 64), jnp.repeat(arrays[2][:, :, None], 2, axis=2), rtol=1e-6)


def test_only_batches_that_fill_a_gpu_take_the_kernel():
    assert decode.fits(128, 12, 2, 128, 512)
    assert not decode.fits(8, 12, 2, 128, 512)
    assert not decode.fits(128, 12, 2, 96, 512)
    assert not decode.fits(128, 12, 2, 128, 96)
    assert not decode.fits(128, 64, 2, 128, 512)


def test_decoding_a_model_with_the_kernel_gives_the_same_logits(monkeypatch):
    sizes = {"vocab_size": 32, "hidden_size": 64, "intermediate_size": 64, "num_layers": 2}
    config = ModelConfig(**sizes, num_heads=4, num_kv_heads=2, head_dim=64, tie_embeddings=True)
    graphdef, params = nnx.split(Decoder(config, rngs=nnx.Rngs(0)))
    weights, rng = unrolled.unroll(graphdef, params), np.random.default_rng(0)
    tokens, first = jnp.asarray(rng.integers(0, 32, (32, 9))), jnp.asarray(rng.integers(0, 5, 32), jnp.int32)
    cache = unrolled.prefill(config, weights, tokens[:, :8], jnp.arange(8) * jnp.ones((32, 1), int), tokens[:, :8] * 0)
    arguments = config, weights, tokens[:, 8], cache.grow(64), first, jnp.int32(8)
    want = unrolled.decode(*arguments)
    interpreted = functools.partial(decode.decode_attention, interpret=not ON_GPU)
    monkeypatch.setattr(unrolled, "on_hopper", lambda mesh: True)
    monkeypatch.setattr(decode, "decode_attention", interpreted)
    got = unrolled.decode(*arguments)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 if not ON_GPU else 1e-2)
