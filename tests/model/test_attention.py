"""Attention against a loop over queries in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.model import attention as module
from w2sr_jax.model.attention import attention


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


def test_a_query_of_the_cached_form_sees_the_filled_slots_up_to_its_position():
    q, k, v = arrays(2, 1, 8, 4, 2)
    slots = np.array([[0, 1, 2, 3, 4, -1, -1, -1], [-1, -1, 0, 1, 2, 3, 4, 5]])
    query = np.array([[4], [3]])
    got = attention(q, k, v, query_positions_BT=jnp.asarray(query), key_positions_BS=jnp.asarray(slots))
    mask = (slots[:, None] >= 0) & (slots[:, None] <= query[:, :, None])
    np.testing.assert_allclose(got, reference(q, k, v, mask), atol=1e-5)


def test_a_query_with_nothing_to_see_is_finite_and_so_is_its_gradient():
    q, k, v = arrays(1, 1, 4, 2, 1)
    empty = jnp.full((1, 4), -1)

    def total(q):
        return attention(q, k, v, query_positions_BT=jnp.zeros((1, 1), int), key_positions_BS=empty).sum()

    value, grad = jax.value_and_grad(total)(jnp.asarray(q))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
