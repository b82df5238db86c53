"""Attention of one new token a row over its cache on a GPU, by one Pallas kernel (Triton) a layer.

It writes the token's key and value into their slot, and reads the slots that are in use and no others. XLA would run
five kernels, which read all slots and write scores and weights out.

Shape letters: B rows, N query heads, K key heads, G = N / K, H head dim, S cache slots.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from w2sr_jax.model.attention import MASKED

QUERIES = 16  # rows of Triton's smallest matmul
BLOCK = 64  # slots
LEAST = 64  # programs, one a row and key head: fewer leave most of a GPU idle


def fits(rows: int, heads: int, kv_heads: int, width: int, slots: int) -> bool:
    """Whether the kernel takes it, and is worth it."""
    groups = heads // kv_heads
    return rows * kv_heads >= LEAST and groups <= QUERIES and width in (64, 128) and slots % BLOCK == 0


def decode_attention(
    q_BNH: jax.Array,
    k_BKH: jax.Array,
    v_BKH: jax.Array,
    k_BKHS: jax.Array,
    v_BKSH: jax.Array,
    first_B: jax.Array,
    slot: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Softmax attention of each row's new token over slots first..slot-1 and itself.

    Args:
        q_BNH, k_BKH, v_BKH: the token's.
        k_BKHS, v_BKSH: the cache, which is written in place.
        interpret: runs on any device, slowly: for tests.

    Returns:
        [B, N, H] in the dtype of `v`, and the cache with the token in `slot`.
    """
    B, N, H = q_BNH.shape
    K, S = v_BKSH.shape[1:3]
    G = N // K

    def row(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, None, *shape), lambda b, k: (b, k) + (0,) * len(shape))

    out_BKGH, keys, values = pl.pallas_call(
        functools.partial(_kernel, groups=G, scale=H**-0.5),
        grid=(B, K),
        in_specs=[
            row(QUERIES, H),
            row(H),
            row(H),
            pl.BlockSpec((None,), lambda b, k: (b,)),
            pl.BlockSpec((None,), lambda b, k: (0,)),
            row(H, S),
            row(S, H),
        ],
        out_specs=[row(QUERIES, H), row(H, S), row(S, H)],
        out_shape=[
            jax.ShapeDtypeStruct((B, K, G, H), v_BKSH.dtype),
            jax.ShapeDtypeStruct(k_BKHS.shape, k_BKHS.dtype),
            jax.ShapeDtypeStruct(v_BKSH.shape, v_BKSH.dtype),
        ],
        input_output_aliases={5: 1, 6: 2},
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="decode_attention",
    )(q_BNH.reshape(B, K, G, H), k_BKH, v_BKH, first_B, slot[None], k_BKHS, v_BKSH)
    return out_BKGH.reshape(B, N, H), keys, values


def _kernel(
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    first_ref: Any,
    slot_ref: Any,
    keys_ref: Any,
    values_ref: Any,
    out_ref: Any,
    new_keys_ref: Any,
    new_values_ref: Any,
    *,
    groups: int,
    scale: float,
) -> None:
    there = (jnp.arange(QUERIES) < groups)[:, None]  # the other queries pad the matmuls
    first, slot = first_ref[...], slot_ref[...]
    q, k, v = plgpu.load(q_ref, mask=there, other=0.0), k_ref[...], v_ref[...]

    def step(block: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        out, top, total = carry
        here = pl.ds(block * BLOCK, BLOCK)
        slots = block * BLOCK + jnp.arange(BLOCK)
        scores = plgpu.dot(q, keys_ref[:, here]) * scale
        scores = jnp.where(((slots >= first) & (slots < slot))[None, :], scores, MASKED)
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        weights, less = jnp.exp(scores - new_top[:, None]), jnp.exp(top - new_top)
        out = out * less[:, None] + plgpu.dot(weights.astype(v.dtype), values_ref[here, :])
        return out, new_top, total * less + jnp.sum(weights, axis=1)

    # The token sees itself: its score is the first maximum, so that no block need have anything to see.
    top = jnp.sum(q.astype(jnp.float32) * k.astype(jnp.float32)[None, :], axis=1) * scale
    start = jnp.broadcast_to(v.astype(jnp.float32)[None, :], q.shape), top, jnp.ones_like(top)
    out, _, total = jax.lax.fori_loop(first // BLOCK, pl.cdiv(slot, BLOCK), step, start)
    plgpu.store(out_ref, (out / total[:, None]).astype(out_ref.dtype), mask=there)
    new_keys_ref[:, slot] = k.astype(new_keys_ref.dtype)
    new_values_ref[slot, :] = v.astype(new_values_ref.dtype)
