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
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, *, segment_ids_BT: jax.Array | None = None
) -> jax.Array:
    """Softmax attention, scaled by 1/sqrt(H), causal: a query sees the tokens up to itself, of its own segment.

    Returns:
        [B, T, N, H] in the dtype of `v`.
    """
    length = q_BTNH.shape[1]
    block = max(MIN_BLOCK, -(-length // MAX_BLOCKS))
    outputs = []
    for start in range(0, length, block):
        end = min(start + block, length)
        mask = jnp.arange(start, end)[None, :, None] >= jnp.arange(end)[None, None, :]
        if segment_ids_BT is not None:
            mask &= segment_ids_BT[:, start:end, None] == segment_ids_BT[:, None, :end]
        outputs.append(_dense(q_BTNH[:, start:end], k_BTKH[:, :end], v_BTKH[:, :end], mask))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)


def decode_attention(
    q_BNH: jax.Array, k_BKHS: jax.Array, v_BKSH: jax.Array, first_B: jax.Array, last: jax.Array, parts: int = 1
) -> jax.Array:
    """Softmax attention of one query a row over the slots first..last of a cache.

    Args:
        parts: 1 makes two batched matmuls over all slots. On a CPU these are slow for one query, and sums that XLA
            fuses with their products faster; they run over the first so many of this number of equal parts as hold
            slot `last`, so that a cache costs what is in it, not its size.

    Returns:
        [B, N, H] in the dtype of `v`.
    """
    B, N, H = q_BNH.shape
    K, S = v_BKSH.shape[1:3]
    q_BKGH = q_BNH.reshape(B, K, N // K, H)

    def softmax(scores_BKGS: jax.Array) -> jax.Array:
        slots_S = jnp.arange(scores_BKGS.shape[-1])
        mask_BS = (slots_S >= first_B[:, None]) & (slots_S <= last)
        return jax.nn.softmax(jnp.where(mask_BS[:, None, None], scores_BKGS * H**-0.5, MASKED), axis=-1)

    def sums(size: int) -> jax.Array:
        k_BKHs, v_BKsH = k_BKHS[..., :size], v_BKSH[..., :size, :]
        products = q_BKGH[..., None].astype(jnp.float32) * k_BKHs[:, :, None].astype(jnp.float32)
        weights_BKGs = softmax(jnp.sum(products, axis=3))
        return jnp.sum(weights_BKGs[..., None] * v_BKsH[:, :, None].astype(jnp.float32), axis=3).astype(v_BKSH.dtype)

    if parts == 1:
        scores_BKGS = jnp.einsum("bkgh,bkhs->bkgs", q_BKGH, k_BKHS, preferred_element_type=jnp.float32)
        out_BKGH = jnp.einsum("bkgs,bksh->bkgh", softmax(scores_BKGS).astype(v_BKSH.dtype), v_BKSH)
    else:
        sizes = [-(-S * part // parts) for part in range(1, parts + 1)]
        holds_last = jnp.searchsorted(jnp.array(sizes), last, side="right")
        out_BKGH = jax.lax.switch(holds_last, [lambda size=size: sums(size) for size in sizes])
    return out_BKGH.reshape(B, N, H)


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
