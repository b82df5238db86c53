"""Attention on a GPU by JAX's Pallas flash kernel (Triton): causal, packed by segment ids, nothing of [T, T] in memory.

It takes as many key heads as query heads, so that grouped ones are repeated, and writes no residuals under a name of
ours: its output is named by the caller, and a policy that keeps it still runs the forward kernel again.

Shape letters: B rows, T time, N query heads, K key heads, H head dim.
"""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from w2sr_jax.model.kernels.layout import on_devices, padded
from w2sr_jax.model.remat import ATTENTION

with warnings.catch_warnings():  # it points to tokamax, a package of its own
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.experimental.pallas.ops.gpu import attention as kernels

BLOCK = 128  # queries and keys of the forward kernel
BACKWARD = 64  # of the backward one; 128 would not fit the shared memory of an H100 at H = 128 (not measured)


def flash_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array | None,
    mesh: Mesh | None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """As `model.attention.attention`: causal within segments, scaled by 1/sqrt(H); [B, T, N, H].

    Args:
        mesh: rows are split over its data axes and heads over tensor, as in `splash_attention`.
        interpret: runs on any device, slowly: for tests.
    """
    length, scale = q_BTNH.shape[1], q_BTNH.shape[-1] ** -0.5
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    sizes = kernels.BlockSizes(
        block_q=BLOCK,
        block_k=BLOCK,
        block_q_dkv=BACKWARD,
        block_kv_dkv=BACKWARD,
        block_q_dq=BACKWARD,
        block_kv_dq=BACKWARD,
    )

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segments_BT: jax.Array) -> jax.Array:
        k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
        q, k, v, segments_BT = (padded(x, BLOCK) for x in (q, k, v, segments_BT))
        out = kernels.mha(q, k, v, segments_BT, sm_scale=scale, causal=True, block_sizes=sizes, interpret=interpret)
        return checkpoint_name(out[:, :length], ATTENTION)

    return on_devices(local, mesh)(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
