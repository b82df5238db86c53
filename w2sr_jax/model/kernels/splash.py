"""Attention on a TPU by JAX's Splash kernel: causal, packed, grouped-query; no [T, T] mask, bias or score in HBM.

The kernel sees one device's rows and heads (`jax.shard_map`). Its output and log-sum-exp carry the name ATTENTION, so
that a remat policy can keep them: the backward pass then runs no second forward kernel.

Shape letters: B rows, T time, N query heads, K key heads, H head dim.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import Mesh

from w2sr_jax.model.kernels.layout import LANES, on_devices, padded
from w2sr_jax.model.remat import ATTENTION

BLOCKS = (1024, 512, 256, LANES)  # tokens: the largest that divides T; see BUILD_NOTES.md for what larger ones cost
COMPUTE = 512  # tokens of a block of keys that are worked on at once
FUSED = 8  # blocks of keys up to which one backward kernel makes all gradients


def splash_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array | None,
    mesh: Mesh | None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """As `model.attention.attention`, of queries that are multiplied with 1/sqrt(H) already; [B, T, N, H].

    Args:
        mesh: rows are split over its data axes and heads over tensor; K heads that are fewer than the tensor axis has
            devices are on all of them.
        interpret: runs on any device, slowly: for tests.
    """
    length = q_BTNH.shape[1]
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segments_BT: jax.Array) -> jax.Array:
        q, k, v = (padded(x, LANES).swapaxes(1, 2) for x in (q, k, v))
        kernel = _kernel(q.shape[1], q.shape[2], interpret)

        def row(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
            out: Any = kernel(q, k, v, segment_ids=kernels.SegmentIds(q=segments, kv=segments))
            return out

        out_BNTH = jax.vmap(row)(q, k, v, padded(segments_BT, LANES))
        return out_BNTH.swapaxes(1, 2)[:, :length]

    return on_devices(local, mesh)(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)


def _kernel(heads: int, length: int, interpret: bool) -> kernels.SplashAttentionKernel:
    """For one row: [heads, T, H] by [K, T, H].

    One backward kernel makes all three gradients: five matmuls a block instead of seven. Its dq comes in one part for
    each block of keys, in the dtype of q, which is why blocks are large, and why long rows get two kernels: the parts
    of all blocks take memory that grows with the square of T.
    """
    block = next(size for size in BLOCKS if length % size == 0)
    compute, fused = min(block, COMPUTE), length // block <= FUSED
    sizes = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=compute,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=compute,
        block_q_dq=None if fused else block,
        block_kv_dq=None if fused else block,
        use_fused_bwd_kernel=fused,
    )
    mask = masks.MultiHeadMask([masks.CausalMask((length, length))] * heads)
    return kernels.make_splash_mha(
        mask,
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
