"""Grouped-query attention: one function, so that kernels for TPU and GPU can be added behind it.

The dense form is two batched matmuls with a float32 softmax between. The G query heads that share a key head are folded
into the rows of one matmul ([B, K, G*T, H] by [B, K, S, H]), which is twice as fast on CPU as a 5-dimensional einsum
and keeps B and K apart, so that either can be sharded. Causal attention runs in static blocks of queries, each of
which sees only the keys up to its own end.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

MIN_BLOCK = 128  # queries; smaller blocks skip more of the masked half but make smaller matmuls
MAX_BLOCKS = 8  # bounds the program size at long T
MASKED = -1e30  # finite: a query with nothing to see averages instead of making NaN


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    query_positions_BT: jax.Array | None = None,
    key_positions_BS: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention, scaled by 1/sqrt(H), causal.

    Without key positions the keys are the queries' own tokens (S = T): a query sees the tokens up to itself, of
    its own segment where segment ids are given. With key positions (a cache) a query sees the slots with
    0 <= key position <= query position.

    Returns:
        [B, T, N, H] in the dtype of `v`.
    """
    if key_positions_BS is not None:
        assert query_positions_BT is not None
        keys_BTS = key_positions_BS[:, None, :]
        mask_BTS = (keys_BTS >= 0) & (keys_BTS <= query_positions_BT[:, :, None])
        return _dense(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
    length = q_BTNH.shape[1]
    block = max(MIN_BLOCK, -(-length // MAX_BLOCKS))
    outputs = []
    for start in range(0, length, block):
        end = min(start + block, length)
        mask = jnp.arange(start, end)[None, :, None] >= jnp.arange(end)[None, None, :]
        if segment_ids_BT is not None:
            mask &= segment_ids_BT[:, start:end, None] == segment_ids_BT[:, None, :end]
        outputs.append(_dense(q_BTNH[:, start:end], k_BSKH[:, :end], v_BSKH[:, :end], mask))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)


def _dense(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    G = N // K
    q_BKRH = q_BTNH.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4).reshape(B, K, G * T, H)
    scores_BKRS = jnp.einsum("bkrh,bskh->bkrs", q_BKRH, k_BSKH, preferred_element_type=jnp.float32)
    scores = scores_BKRS.reshape(B, K, G, T, S) * H**-0.5
    weights = jax.nn.softmax(jnp.where(mask_BTS[:, None, None], scores, MASKED), axis=-1)
    weights_BKRS = weights.astype(v_BSKH.dtype).reshape(B, K, G * T, S)
    out_BKRH = jnp.einsum("bkrs,bskh->bkrh", weights_BKRS, v_BSKH)
    return out_BKRH.reshape(B, K, G, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)
