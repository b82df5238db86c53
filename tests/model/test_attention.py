"""Attention against a loop over queries in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.model import attention as module
from w2sr_jax.model.attention import attention, decode_attention


def arrays(B: int, T: int, S: int, N: int, K: int, H: int = 8):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in [(B, T, N, H), (B, S, K, H), (B, S, K, H)]]


def reference(q, k, v, mask_BTS):
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(q.shape[:3]):
        head = n // (q.shape[2] // k.shape[2])
        scores = np.where(mask_BTS[b, t], k[b, :, head] @ q[b, t, n] / np.sqrt(q.shape[-1]), -np.inf)
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights / weights.sum() @ v[b, :, head]
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (7, 1), (14, 2)])
def test_causal_attention_equals_the_reference_for_any_grouping(heads, kv_heads):
    q, k, v = arrays(2, 6, 6, heads, kv_heads)
    expected = reference(q, k, v, np.broadcast_to(np.tril(np.ones((6, 6), bool)), (2, 6, 6)))
    np.testing.assert_allclose(attention(q, k, v), expected, atol=1e-5)


@pytest.mark.parametrize("length", [7, 8, 29])
def test_blocks_of_queries_change_nothing_also_where_they_do_not_divide_the_length(monkeypatch, length):
    q, k, v = arrays(2, length, length, 4, 2)
    segments = np.sort(np.random.default_rng(1).integers(0, 3, (2, length)))
    whole = attention(q, k, v, segment_ids_BT=segments)
    monkeypatch.setattr(module, "MIN_BLOCK", 4)
    np.testing.assert_allclose(attention(q, k, v, segment_ids_BT=segments), whole, atol=1e-5)
    mask = np.tril(np.ones((length, length), bool)) & (segments[:, :, None] == segments[:, None, :])
    np.testing.assert_allclose(whole, reference(q, k, v, mask), atol=1e-5)


def dense(q, k, v, mask_BTS):
    """The textbook form, differentiated by JAX."""
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) / jnp.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask_BTS[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bnts,bsnh->btnh", weights, v)


@pytest.mark.parametrize("part", [None, 1, 3000])
@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize(("length", "heads", "kv_heads"), [(8, 4, 4), (29, 4, 2), (50, 14, 2)])
def test_gradients_are_those_of_the_dense_form(monkeypatch, length, heads, kv_heads, segmented, part):
    monkeypatch.setattr(module, "MIN_BLOCK", 4)
    monkeypatch.setattr(module, "PART", part)
    q, k, v = arrays(2, length, length, heads, kv_heads)
    segments = np.sort(np.random.default_rng(1).integers(0, 3, (2, length))) if segmented else None
    mask = np.broadcast_to(np.tril(np.ones((length, length), bool)), (2, length, length))
    if segmented:
        mask = mask & (segments[:, :, None] == segments[:, None, :])
    weight = np.random.default_rng(2).normal(size=q.shape).astype(np.float32)

    def total(function, **kwargs):
        return lambda q, k, v: jnp.sum(function(q, k, v, **kwargs) * weight)

    kwargs = {"segment_ids_BT": segments, "in_parts": part is not None}
    got = jax.grad(total(attention, **kwargs), argnums=(0, 1, 2))(q, k, v)
    expected = jax.grad(total(dense, mask_BTS=mask), argnums=(0, 1, 2))(q, k, v)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_bfloat16_is_as_close_to_float32_as_the_dense_form(monkeypatch):
    monkeypatch.setattr(module, "MIN_BLOCK", 16)
    length = 64
    inputs = [jnp.asarray(x, jnp.bfloat16) for x in arrays(2, length, length, 4, 2, H=32)]
    weight = np.random.default_rng(2).normal(size=inputs[0].shape).astype(np.float32)
    mask = np.broadcast_to(np.tril(np.ones((length, length), bool)), (2, length, length))

    def forward_and_gradients(function, dtype, **kwargs):
        arguments = [x.astype(dtype) for x in inputs]
        out, backward = jax.vjp(lambda *x: function(*x, **kwargs), *arguments)
        return [np.asarray(x, np.float32) for x in (out, *backward(jnp.asarray(weight, out.dtype)))]

    exact = forward_and_gradients(dense, jnp.float32, mask_BTS=mask)
    blocked = forward_and_gradients(attention, jnp.bfloat16)
    plain = forward_and_gradients(dense, jnp.bfloat16, mask_BTS=mask)
    for ours, theirs, true in zip(blocked, plain, exact, strict=True):
        assert np.square(ours - true).mean() <= np.square(theirs - true).mean()


def test_the_backward_pass_keeps_no_probabilities():
    """What lies between forward and backward is as long as the queries, not as their square."""
    length = 512
    q, k, v = arrays(1, length, length, 2, 1)
    _, backward = jax.vjp(attention, q, k, v)
    assert max(x.size for x in jax.tree.leaves(backward)) <= q.size


def test_parts_have_as_many_pairs_of_row_and_key_head_as_their_scores_may_be_many(monkeypatch):
    q, k, v = arrays(6, 16, 16, 4, 2)
    whole = attention(q, k, v)
    for part, loops in ((1, 12), (2 * 16 * 16 * 5, 3), (2 * 16 * 16 * 12, None)):
        monkeypatch.setattr(module, "PART", part)
        text = str(jax.make_jaxpr(lambda *x: attention(*x, in_parts=True))(q, k, v))
        assert (f"length={loops}" in text) if loops else ("scan" not in text)
        np.testing.assert_allclose(attention(q, k, v, in_parts=True), whole, atol=1e-6)


@pytest.mark.parametrize("last", [0, 1, 2, 5, 6, 9])
def test_the_query_of_a_cached_row_sees_its_first_to_the_last_slot(last):
    q, k, v = arrays(3, 1, 10, 4, 2)
    first = np.array([0, min(3, last), last])
    got = decode_attention(
        q[:, 0], k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), jnp.asarray(first), jnp.int32(last)
    )
    mask = (np.arange(10) >= first[:, None]) & (np.arange(10) <= last)
    np.testing.assert_allclose(got, reference(q, k, v, mask[:, None])[:, 0], atol=1e-5)


def test_a_row_with_nothing_to_see_is_finite():
    q, k, v = arrays(1, 1, 8, 2, 1)
    got = decode_attention(q[:, 0], k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), jnp.array([5]), jnp.int32(2))
    assert np.isfinite(got).all()
