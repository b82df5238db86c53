"""From logits to a token: greedy, temperature, top-k, top-p, with one random stream per row.

Shape letters: B rows, V vocabulary, b blocks of the vocabulary, W tokens of a block.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

NONE = jnp.iinfo(jnp.int32).max  # no index


def choose_tokens(
    logits_BV: jax.Array,
    row_keys_B2: jax.Array,
    index_B: jax.Array,
    temperature: jax.Array | float,
    top_p: jax.Array | float,
    top_k: jax.Array | int,
) -> jax.Array:
    """Draws a token per row from the softmax, with one uniform number each; temperature 0 is argmax and draws nothing.

    Args:
        logits_BV: fp32.
        row_keys_B2: uint32 key data of each row.
        index_B: int32, of the token in its row's completion; folded into the row's key.
        temperature, top_p, top_k: runtime scalars, as in `engine.base.Sampling`.

    Returns:
        int32 [B].
    """

    def draw(logits_BV: jax.Array) -> jax.Array:
        scaled_BV = logits_BV / temperature
        truncated = (top_p < 1) | ((top_k > 0) & (top_k < logits_BV.shape[-1]))
        kept_BV = jax.lax.cond(truncated, lambda x: truncate(x, top_p, top_k), lambda x: x, scaled_BV)
        keys_B = jax.vmap(jax.random.fold_in)(_keys(row_keys_B2), index_B)
        return invert(kept_BV, jax.vmap(jax.random.uniform)(keys_B))

    return jax.lax.cond(temperature == 0, first_largest, draw, logits_BV)


def first_largest(values_BX: jax.Array) -> jax.Array:
    """argmax, int32 [B]; on a CPU two plain reductions take a sixth of its time. 0 where a value is NaN."""
    return _first(~(values_BX < jnp.max(values_BX, axis=-1, keepdims=True)))


def _first(found_BX: jax.Array) -> jax.Array:
    return jnp.min(jnp.where(found_BX, jnp.arange(found_BX.shape[-1], dtype=jnp.int32), NONE), axis=-1)


def invert(logits_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """The token in whose share of the probability mass a number of [0, 1) lies, int32 [B].

    In two levels, a block of tokens and then a token of it, since a running sum over the vocabulary is slow.
    """
    size = logits_BV.shape[-1]
    width = 1 << (size - 1).bit_length() // 2
    weights_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True))
    weights_BbW = jnp.pad(weights_BV, ((0, 0), (0, -size % width))).reshape(len(logits_BV), -1, width)
    weights_Bb = jnp.sum(weights_BbW, axis=-1)
    block_B, rest_B = _locate(weights_Bb, uniform_B * jnp.sum(weights_Bb, axis=-1))
    token_B, _ = _locate(jnp.take_along_axis(weights_BbW, block_B[:, None, None], axis=1)[:, 0], rest_B)
    return block_B * width + token_B


def _locate(weights_BX: jax.Array, mass_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the first index up to which the weights exceed a mass, what of the mass lies there).

    Running sums are rounded: what has no weight is never chosen, and where the sum of all falls short of the mass it
    is the heaviest.
    """
    running_BX = jnp.cumsum(weights_BX, axis=-1)
    found_B = _first((running_BX > mass_B[:, None]) & (weights_BX > 0))
    index_B = jnp.where(found_B == NONE, first_largest(weights_BX), found_B)
    before_B = jnp.take_along_axis(running_BX - weights_BX, index_B[:, None], axis=1)[:, 0]
    return index_B, mass_B - before_B


def row_keys(seeds_B2: jax.Array, samples_B: jax.Array) -> jax.Array:
    """Key data [B, 2] of (seed, sample) pairs; a seed is 64 bits, the high half first."""
    return jax.random.key_data(jax.vmap(jax.random.fold_in)(_keys(seeds_B2), samples_B))


def _keys(data_B2: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(data_B2, impl="threefry2x32")


def truncate(logits_BV: jax.Array, top_p: jax.Array | float, top_k: jax.Array | int) -> jax.Array:
    """Sets to -inf what top-k and then top-p (over what top-k left) exclude; ties with the last one kept stay."""
    size = logits_BV.shape[-1]
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    in_k_V = jnp.arange(size) < jnp.where(top_k > 0, top_k, size)
    probs_BV = jax.nn.softmax(jnp.where(in_k_V, sorted_BV, -jnp.inf), axis=-1)
    mass_before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    # The first token is always kept; rounding must not let top_p = 1 drop a tail.
    in_p_BV = (mass_before_BV < top_p) | (top_p >= 1)
    least_B1 = jnp.min(jnp.where(in_k_V & in_p_BV, sorted_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
