"""Decoding on a CPU: the decoder's weights with one array a layer, and a step that copies none of them.

A scanned layer body reads its weights as slices of stacked arrays, which XLA's CPU backend copies at every step, as it
transposes a tied embedding at every step; for one token a row that costs more than the arithmetic. Here query, key and
value, and gate and up, are one matmul each. The numbers are those of `Decoder.decode` up to rounding.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from w2sr_jax.model.attention import decode_attention
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder, rms_norm
from w2sr_jax.model.kv_cache import Cache
from w2sr_jax.model.rope import rope_tables, rotate

PARTS = 4  # of the cache that attention may leave out; each is compiled


@functools.partial(jax.tree_util.register_dataclass, data_fields=["embed", "norm", "head", "layers"], meta_fields=[])
@dataclasses.dataclass(frozen=True, slots=True)
class Unrolled:
    """Weights in the dtype of the activations."""

    embed: Any  # [V, D], in the parameters' dtype
    norm: Any  # [D]
    head: Any  # [D, V], in memory as it says, also where it is the embedding
    layers: tuple[dict[str, Any], ...]


@functools.partial(jax.jit, static_argnames=("graphdef",))
def unroll(graphdef: nnx.GraphDef[Decoder], params: Any) -> Unrolled:
    """A decoder's parameters, copied."""
    model = nnx.merge(graphdef, params)
    w = {name: param[...] for name, param in model.layers.items()}

    def layer(i: int) -> dict[str, Any]:
        def joined(names: tuple[str, ...]) -> jax.Array:
            return jnp.concatenate([w[name][i] for name in names], axis=-1).astype(model.dtype)

        found = {name: w[name][i] for name in ("input_norm", "post_norm")}
        found |= {"qkv": joined(("q", "k", "v")), "o": joined(("o",))}
        found |= {"gate_up": joined(("gate", "up")), "down": joined(("down",))}
        if model.config.attention_bias:
            found["qkv_bias"] = joined(("q_bias", "k_bias", "v_bias"))
        return found

    layers = tuple(layer(i) for i in range(model.config.num_layers))
    return Unrolled(model.embed[...], model.norm[...], model.head().astype(model.dtype), layers)


def decode(
    config: ModelConfig, weights: Unrolled, tokens_B: jax.Array, cache: Cache, first_B: jax.Array, slot: jax.Array
) -> tuple[jax.Array, Cache]:
    """As `Decoder.decode`, with a cache of one array a layer."""
    dtype, rows = weights.head.dtype, tokens_B.shape[0]
    N, K, H = config.num_heads, config.num_kv_heads, config.head_dim
    tables = rope_tables(config, (slot - first_B)[:, None])
    x_BD = weights.embed.at[tokens_B].get(mode="clip").astype(dtype)
    keys, values = list(cache.k), list(cache.v)
    for i, w in enumerate(weights.layers):
        qkv = rms_norm(x_BD, w["input_norm"], config.rms_norm_eps) @ w["qkv"]
        if config.attention_bias:
            qkv = qkv + w["qkv_bias"]
        heads_B1XH = qkv.reshape(rows, 1, N + 2 * K, H)
        q_BNH, k_BKH = (rotate(x, tables)[:, 0] for x in jnp.split(heads_B1XH[:, :, : N + K], [N], axis=2))
        v_BKH = heads_B1XH[:, 0, N + K :]
        keys[i] = jax.lax.dynamic_update_slice(keys[i], k_BKH[..., None], (0, 0, 0, slot))
        values[i] = jax.lax.dynamic_update_slice(values[i], v_BKH[:, :, None], (0, 0, slot, 0))
        out_BNH = decode_attention(q_BNH, keys[i], values[i], first_B, slot, parts=PARTS)
        x_BD = x_BD + out_BNH.reshape(rows, N * H) @ w["o"]
        gate, up = jnp.split(rms_norm(x_BD, w["post_norm"], config.rms_norm_eps) @ w["gate_up"], 2, axis=-1)
        x_BD = x_BD + (jax.nn.silu(gate) * up) @ w["down"]
    hidden_BD = rms_norm(x_BD, weights.norm, config.rms_norm_eps)
    logits_BV = jnp.matmul(hidden_BD, weights.head, preferred_element_type=jnp.float32)
    return logits_BV, Cache(tuple(keys), tuple(values))
