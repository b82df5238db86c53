"""Sampling on one CPU or GPU: the decoder's weights with one array a layer, and steps that copy none of them.

A scanned layer body reads its weights as slices of stacked arrays, which XLA copies there at every step, as its CPU
backend transposes a tied embedding at every step; for one token a row that costs more than the arithmetic. Here query,
key and value, and gate and up, are one matmul each. The numbers are those of `Decoder` up to rounding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from w2sr_jax.model.attention import decode_attention
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import PROMPT, Attend, Decoder, Tables, rms_norm
from w2sr_jax.model.kernels.choice import attention
from w2sr_jax.model.kernels.layout import on_hopper
from w2sr_jax.model.kernels.onednn import Packed, matmul, pack
from w2sr_jax.model.kv_cache import Cache, write_key
from w2sr_jax.model.rope import rope_tables, rotate


@functools.partial(jax.tree_util.register_dataclass, data_fields=["embed", "norm", "head", "layers"], meta_fields=[])
@dataclasses.dataclass(frozen=True, slots=True)
class Unrolled:
    """Weights in the dtype of the activations; a matrix is an array, in memory as its shape says, or Packed."""

    embed: Any  # [V, D], in the parameters' dtype
    norm: Any  # [D]
    head: Any  # [D, V], also where it is the embedding
    layers: tuple[dict[str, Any], ...]


@functools.partial(jax.jit, static_argnames=("graphdef", "packed"))
def unroll(graphdef: nnx.GraphDef[Decoder], params: Any, *, packed: bool = False) -> Unrolled:
    """A decoder's parameters, copied; its matrices `packed` for one CPU where that is faster."""
    model = nnx.merge(graphdef, params)
    w = {name: param[...] for name, param in model.layers.items()}

    def matrix(weight_DF: jax.Array) -> Packed | jax.Array:
        weight_DF = weight_DF.astype(model.dtype)
        return pack(weight_DF) if packed else weight_DF

    def layer(i: int) -> dict[str, Any]:
        def joined(names: tuple[str, ...]) -> Packed | jax.Array:
            return matrix(jnp.concatenate([w[name][i] for name in names], axis=-1))

        found: dict[str, Any] = {name: w[name][i] for name in ("input_norm", "post_norm")}
        found |= {"qkv": joined(("q", "k", "v")), "o": joined(("o",))}
        found |= {"gate_up": joined(("gate", "up")), "down": joined(("down",))}
        if model.config.attention_bias:
            biases = [w[name][i] for name in ("q_bias", "k_bias", "v_bias")]
            found["qkv_bias"] = jnp.concatenate(biases).astype(model.dtype)
        return found

    layers = tuple(layer(i) for i in range(model.config.num_layers))
    return Unrolled(model.embed[...], model.norm[...], matrix(model.head()), layers)


def prefill(
    config: ModelConfig, weights: Unrolled, tokens_BT: jax.Array, positions_BT: jax.Array, segment_ids_BT: jax.Array
) -> Cache:
    """As `Decoder.prefill`; the cache has one array a layer."""
    tables, keys, values = _tables(config, positions_BT), list[jax.Array](), list[jax.Array]()

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        keys.append(k.transpose(0, 2, 3, 1))
        values.append(v.transpose(0, 2, 1, 3))
        return attention(q, k, v, segment_ids_BT=segment_ids_BT, row_examples=PROMPT)

    x_RD = _embed(weights, tokens_BT.reshape(-1))
    for w in weights.layers:
        x_RD = _layer(config, w, x_RD, tokens_BT.shape, tables, attend)
    return Cache(tuple(keys), tuple(values))


def decode(
    config: ModelConfig, weights: Unrolled, tokens_B: jax.Array, cache: Cache, first_B: jax.Array, slot: jax.Array
) -> tuple[jax.Array, Cache]:
    """As `Decoder.decode`, with a cache of one array a layer."""
    tables, keys, values = _tables(config, (slot - first_B)[:, None]), list[jax.Array](), list[jax.Array]()

    in_one_kernel = _kernel(config, len(tokens_B), cache.length)

    def attend(q_B1NH: jax.Array, k_B1KH: jax.Array, v_B1KH: jax.Array) -> jax.Array:
        layer = len(keys)
        if in_one_kernel:
            new = q_B1NH[:, 0], k_B1KH[:, 0], v_B1KH[:, 0]
            out_BNH, k, v = in_one_kernel(*new, cache.k[layer], cache.v[layer], first_B, slot)
            keys.append(k)
            values.append(v)
            return out_BNH
        keys.append(write_key(cache.k[layer], k_B1KH[:, 0], slot))
        values.append(jax.lax.dynamic_update_slice(cache.v[layer], v_B1KH[:, 0, :, None], (0, 0, slot, 0)))
        return decode_attention(q_B1NH[:, 0], keys[layer], values[layer], first_B, slot)

    x_BD = _embed(weights, tokens_B)
    for w in weights.layers:
        x_BD = _layer(config, w, x_BD, (len(x_BD), 1), tables, attend)
    logits_BV = matmul(rms_norm(x_BD, weights.norm, config.rms_norm_eps), weights.head, jnp.float32)
    return logits_BV, Cache(tuple(keys), tuple(values))


def _kernel(config: ModelConfig, rows: int, slots: int) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]] | None:
    """Attention and the cache's update in one kernel, where the device has it."""
    if not on_hopper(None):
        return None
    from w2sr_jax.model.kernels.decode import decode_attention, fits

    heads = config.num_heads, config.num_kv_heads, config.head_dim
    return decode_attention if fits(rows, *heads, slots) else None


def _tables(config: ModelConfig, positions_BT: jax.Array) -> Tables:
    """`rope_tables` behind a barrier, or XLA computes them again for every head of every layer."""
    return jax.lax.optimization_barrier(rope_tables(config, positions_BT))


def _embed(weights: Unrolled, tokens_R: jax.Array) -> jax.Array:
    return weights.embed.at[tokens_R].get(mode="clip").astype(weights.head.dtype)


def _layer(
    config: ModelConfig,
    w: dict[str, Any],
    x_RD: jax.Array,
    rows: tuple[int, ...],  # B, T
    tables: Tables,
    attend: Attend,
) -> jax.Array:
    N, K, H = config.num_heads, config.num_kv_heads, config.head_dim
    qkv = matmul(rms_norm(x_RD, w["input_norm"], config.rms_norm_eps), w["qkv"])
    if config.attention_bias:
        qkv = qkv + w["qkv_bias"]
    heads_BTXH = qkv.reshape(*rows, N + 2 * K, H)
    q, k = (rotate(x, tables) for x in jnp.split(heads_BTXH[:, :, : N + K], [N], axis=2))
    x_RD = x_RD + matmul(attend(q, k, heads_BTXH[:, :, N + K :]).reshape(-1, N * H), w["o"])
    gate, up = jnp.split(matmul(rms_norm(x_RD, w["post_norm"], config.rms_norm_eps), w["gate_up"]), 2, axis=-1)
    return x_RD + matmul(jax.nn.silu(gate) * up, w["down"])
