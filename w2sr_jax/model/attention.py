"""Grouped-query attention: one function, so that kernels for TPU and GPU can be added behind it.

Causal attention runs in static blocks of queries, each of which sees only the keys up to its own end. It keeps no
probabilities for the backward pass: that computes them again from each query's log-sum-exp (Dao et al., 2022,
"FlashAttention"), so that memory grows with T and not with its square.

The G query heads that share a key head are folded into the rows of one matmul ([B, K, G*T, H] by [B, K, S, H]), which
is twice as fast on CPU as a 5-dimensional einsum and keeps B and K apart, so that either can be sharded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

MIN_BLOCK = 128  # queries; smaller blocks skip more of the masked half but make smaller matmuls
MAX_BLOCKS = 8  # bounds the program size at long T
PART = 1 << 20  # float32 scores that stay in the cache of a CPU between the operations on them
MASKED = -1e30  # finite: a query with nothing to see averages instead of making NaN


def attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    q_scaled: bool = False,
    in_parts: bool = False,
) -> jax.Array:
    """Softmax attention, scaled by 1/sqrt(H), causal: a query sees the tokens up to itself, of its own segment.

    Args:
        q_scaled: queries have been multiplied with that.
        in_parts: some key heads of some rows after the others, so that the scores of a block of queries stay in a
            CPU's cache. Neither rows nor heads may be sharded then.

    Returns:
        [B, T, N, H] in the dtype of `v`.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BTKH.shape[2]
    if not q_scaled:
        q_BTNH = (q_BTNH.astype(jnp.float32) * H**-0.5).astype(q_BTNH.dtype)
    q_BKGTH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k_BKTH, v_BKTH = k_BTKH.transpose(0, 2, 1, 3), v_BTKH.transpose(0, 2, 1, 3)
    run = _in_parts if in_parts else functools.partial(_causal, on_one_cpu=False)
    out_BKGTH = run(q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT)
    return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def decode_attention(
    q_BNH: jax.Array, keys: jax.Array, v_BKSH: jax.Array, first_B: jax.Array, last: jax.Array
) -> jax.Array:
    """Softmax attention of one query a row over the slots first..last of a cache.

    Args:
        keys: [B, K, H, S], or in tiles of slots, [B, K, t, H, C].

    Returns:
        [B, N, H] in the dtype of `v`.
    """
    B, N, H = q_BNH.shape
    K, S = v_BKSH.shape[1:3]
    slots_S = jnp.arange(S)
    mask_BS = (slots_S >= first_B[:, None]) & (slots_S <= last)
    q_BKGH = q_BNH.reshape(B, K, N // K, H)
    if keys.ndim == 4:
        scores_BKGS = _product("bkgh,bkhs->bkgs", q_BKGH, keys) * H**-0.5
    else:
        q_BKtGH = jnp.broadcast_to(q_BKGH[:, :, None], (B, K, keys.shape[2], N // K, H))
        scores_BKGtC = _product("bktgh,bkthc->bktgc", q_BKtGH, keys).swapaxes(2, 3) * H**-0.5
        scores_BKGS = scores_BKGtC.reshape(B, K, N // K, S)
    weights_BKGS = jax.nn.softmax(jnp.where(mask_BS[:, None, None], scores_BKGS, MASKED), axis=-1)
    return jnp.einsum("bkgs,bksh->bkgh", weights_BKGS.astype(v_BKSH.dtype), v_BKSH).reshape(B, N, H)


def _blocks(length: int) -> list[slice]:
    """Blocks of queries; the keys of each end where it ends."""
    size = max(MIN_BLOCK, -(-length // MAX_BLOCKS))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _hidden(length: int, segment_ids_BT: jax.Array | None) -> Callable[[slice], jax.Array]:
    """For a block of queries: what is added to their scores, float32 [S, 1, t], with segments [B, 1, S, 1, t].

    Written out, since comparisons in the loop that takes exponentials make it several times slower. Without segments
    the keys before a block's own are all seen, so that all blocks are cut from one array.
    """
    blocks = _blocks(length)
    size, last = blocks[0].stop, blocks[-1].start

    def added(visible: jax.Array) -> jax.Array:
        return jnp.where(visible, 0.0, MASKED).astype(jnp.float32)

    if segment_ids_BT is not None:
        return lambda block: jax.lax.optimization_barrier(
            added(_visible(block, slice(0, block.stop), segment_ids_BT, keys_first=True))[:, None, :, None]
        )
    own_St = added(_visible(slice(0, size), slice(0, size), None, keys_first=True))
    all_St = jax.lax.optimization_barrier(jnp.pad(own_St, ((last, 0), (0, 0))))

    def cut(block: slice) -> jax.Array:
        start, queries = last - block.start, block.stop - block.start
        return all_St[start : start + block.stop, None, :queries]

    return cut


def _visible(queries: slice, keys: slice, segment_ids_BT: jax.Array | None, *, keys_first: bool = False) -> jax.Array:
    """Which of the keys each of the queries sees: bool [t, S], with segments [B, t, S]; or with S before t."""
    before, after = (..., slice(None), None), (..., None, slice(None))
    t, S = (after, before) if keys_first else (before, after)
    positions = jnp.arange(max(queries.stop, keys.stop))
    mask = positions[queries][t] >= positions[keys][S]
    if segment_ids_BT is not None:
        mask &= segment_ids_BT[:, queries][t] == segment_ids_BT[:, keys][S]
    return mask


def _product(subscripts: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _causal(
    q_BKGTH: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array, segment_ids_BT: jax.Array | None, on_one_cpu: bool
) -> jax.Array:
    return _forward(q_BKGTH, k_BKTH, v_BKTH, segment_ids_BT, on_one_cpu)[0]


def _forward(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids_BT: jax.Array | None, on_one_cpu: bool
) -> tuple[jax.Array, Any]:
    """Without segments the keys before a block's own are apart from these: they need no mask, a pass over scores."""
    del on_one_cpu  # of the backward pass
    B, K, G, T, H = q.shape
    outs: list[jax.Array] = []
    logsumexps = []
    for block in _blocks(T):
        q_b = _rows(q, block)
        if outs:  # one block after the other: XLA would compute all scores before it uses any
            q_b, outs[-1] = jax.lax.optimization_barrier((q_b, outs[-1]))
        if segment_ids_BT is None:
            parts = [keys for keys in (slice(0, block.start), block) if keys.stop > keys.start]
            mask = _visible(block, block, None)
        else:
            parts = [slice(0, block.stop)]
            mask = _visible(block, parts[0], segment_ids_BT)[:, None, None]
        scores = [
            _product("bkrh,bksh->bkrs", q_b, k[:, :, keys]).reshape(B, K, G, block.stop - block.start, -1)
            for keys in parts
        ]
        scores[-1] = jnp.where(mask, scores[-1], MASKED)
        top_BKGt = functools.reduce(jnp.maximum, [jnp.max(x, axis=-1) for x in scores])
        weights = [jnp.exp(x - top_BKGt[..., None]) for x in scores]
        total_BKGt = functools.reduce(jnp.add, [jnp.sum(x, axis=-1) for x in weights])
        weights = [x.reshape(*q_b.shape[:3], -1).astype(v.dtype) for x in weights]
        outs_BKrH = [_product("bkrs,bksh->bkrh", x, v[:, :, keys]) for x, keys in zip(weights, parts)]
        out_BKrH = functools.reduce(jnp.add, outs_BKrH)
        outs.append((out_BKrH.reshape(B, K, G, -1, H) / total_BKGt[..., None]).astype(v.dtype))
        logsumexps.append(top_BKGt + jnp.log(total_BKGt))
    out_BKGTH = jnp.concatenate(outs, axis=3)
    return out_BKGTH, (q, k, v, segment_ids_BT, out_BKGTH, jnp.concatenate(logsumexps, axis=3))


def _backward(on_one_cpu: bool, residuals: Any, dout: jax.Array) -> tuple[Any, ...]:
    """The gradients of `_causal`.

    Scores have keys before queries here, and q's gradient is computed transposed. So the left side of no matmul is
    summed along its rows' axis, which halves a CPU's speed.
    """
    q, k, v, segment_ids_BT, out, logsumexp_BKGT = residuals
    # sum_s p_s dp_s of each query, without p: since out = sum_s p_s v_s
    mean_BKGT = jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    B, K, G, T, H = q.shape
    k_BKHT = jax.lax.optimization_barrier(k.swapaxes(2, 3))
    dqs, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    hidden = _hidden(T, segment_ids_BT)
    less = _less_in_the_product if on_one_cpu and q.dtype == jnp.float32 else _less
    for block in _blocks(T):
        k_b, v_b = k[:, :, : block.stop], v[:, :, : block.stop]
        q_b, dout_b, dk, dv = jax.lax.optimization_barrier((_rows(q, block), _rows(dout, block), dk, dv))
        scores_BKSr = less(k_b, q_b, _rows(logsumexp_BKGT, block))
        weights = jnp.exp(scores_BKSr.reshape(B, K, block.stop, G, -1) + hidden(block)).reshape(scores_BKSr.shape)
        dscores = (weights * less(v_b, dout_b, _rows(mean_BKGT, block))).astype(q.dtype)
        dq_BKHr = _product("bkhs,bksr->bkhr", k_BKHT[..., : block.stop], dscores)
        dqs.append(dq_BKHr.astype(q.dtype).swapaxes(2, 3).reshape(B, K, G, -1, H))
        dk = dk.at[:, :, : block.stop].add(_product("bksr,bkrh->bksh", dscores, q_b))
        dv = dv.at[:, :, : block.stop].add(_product("bksr,bkrh->bksh", weights.astype(v.dtype), dout_b))
    return jnp.concatenate(dqs, axis=3), dk.astype(k.dtype), dv.astype(v.dtype), None


def _less(x_BKSH: jax.Array, y_BKrH: jax.Array, number_BKr: jax.Array) -> jax.Array:
    """x y^T less a number for each row of y, [B, K, S, r]."""
    return _product("bksh,bkrh->bksr", x_BKSH, y_BKrH) - number_BKr[:, :, None]


def _less_in_the_product(x_BKSH: jax.Array, y_BKrH: jax.Array, number_BKr: jax.Array) -> jax.Array:
    """`_less` by one more column of x and of y, where products are of float32 in full: it saves a pass over scores."""
    ones_BKS = jnp.ones(x_BKSH.shape[:3], x_BKSH.dtype)
    x, y = (
        jnp.concatenate([part, column[..., None]], axis=-1)
        for part, column in ((x_BKSH, ones_BKS), (y_BKrH, -number_BKr))
    )
    return _product("bksh,bkrh->bksr", x, y)


def _rows(x_BKGTX: jax.Array, block: slice) -> jax.Array:
    """A block of queries, those of all query heads of a key head together: [B, K, G x t, ...]."""
    B, K, *_ = x_BKGTX.shape
    return x_BKGTX[:, :, :, block].reshape(B, K, -1, *x_BKGTX.shape[4:])


_causal.defvjp(_forward, _backward)


def _in_parts(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids_BT: jax.Array | None) -> jax.Array:
    """`_causal` of a few (row, key head) pairs at a time: as many as have PART scores of a block of queries."""
    B, K, G, T, H = q.shape
    pairs, each = B * K, G * (_blocks(T)[0].stop) * T
    size = max(n for n in range(1, pairs + 1) if pairs % n == 0 and (n == 1 or n * each <= PART))
    if size == pairs:
        return _causal(q, k, v, segment_ids_BT, True)

    def split(x: jax.Array, *shape: int) -> jax.Array:
        return x.reshape(pairs // size, size, *shape)

    if segment_ids_BT is not None:
        segment_ids_BT = split(jnp.repeat(segment_ids_BT, K, axis=0), T)
    parts = split(q, 1, G, T, H), split(k, 1, T, H), split(v, 1, T, H), segment_ids_BT
    return jax.lax.map(lambda part: _causal(*part, True), parts).reshape(q.shape)
