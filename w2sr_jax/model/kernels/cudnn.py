"""Attention on a Hopper GPU by cuDNN's flash kernels: causal, grouped-query, packed; nothing of [T, T] in memory.

cuDNN takes the examples of all rows as sequences of their own, by where each begins and how long it is. Its time grows
with the number of places for them, filled or not, which is why a bound on the examples of a row is asked for. JAX has
no public function for it; this is the one behind `jax.nn.dot_product_attention`.

Shape letters: B rows, T time, N query heads, K key heads, H head dim, M examples of a row, at most.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as kernels
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from w2sr_jax.model.kernels.layout import on_devices
from w2sr_jax.model.remat import ATTENTION


def cudnn_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_ids_BT: jax.Array | None,
    mesh: Mesh | None,
    *,
    row_examples: int,
) -> jax.Array:
    """As `model.attention.attention`: causal within segments, scaled by 1/sqrt(H); [B, T, N, H].

    Args:
        q_BTNH, k_BTKH, v_BTKH: bfloat16 or float16.
        mesh: rows are split over its data axes and heads over tensor, as in `splash_attention`.
        row_examples: M, padding counted as one; where a row has more, all that is computed is NaN.
    """
    scale, packed = q_BTNH.shape[-1] ** -0.5, segment_ids_BT is not None
    if segment_ids_BT is None:
        segment_ids_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segments_BT: jax.Array) -> jax.Array:
        if not packed:
            out = kernels.dot_product_attention(q, k, v, scale=scale, mask_type=kernels.MaskType.CAUSAL)
            return checkpoint_name(out, ATTENTION)
        starts, lengths, fit = places(segments_BT, row_examples)
        out = kernels.dot_product_attention(
            jnp.where(fit, q, jnp.nan),
            k,
            v,
            q_seqlen=lengths,
            kv_seqlen=lengths,
            q_offsets=starts,
            kv_offsets=starts,
            scale=scale,
            mask_type=kernels.MaskType.PADDING_CAUSAL,
        )
        return checkpoint_name(out, ATTENTION)

    return on_devices(local, mesh)(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)


def places(segment_ids_BT: jax.Array, row_examples: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(where each example of a row begins, [B, M + 1]; its tokens, [B, M]; whether every row has at most M).

    What a row does not have is -1. Padding is an example: what no sequence covers, cuDNN would leave unwritten.
    """
    T = segment_ids_BT.shape[1]
    first_BT = jnp.pad(segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    find = jax.vmap(lambda row: jnp.nonzero(row, size=row_examples + 1, fill_value=T)[0])
    begins = find(first_BT).astype(jnp.int32)
    here, fit = begins < T, jnp.all(begins[:, row_examples:] == T)
    lengths = jnp.where(here[:, :-1], begins[:, 1:] - begins[:, :-1], -1)
    return jnp.where(here, begins, -1), lengths, fit
