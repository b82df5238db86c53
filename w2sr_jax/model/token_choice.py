"""From logits to a token: greedy, temperature, top-k, top-p, with one random stream per row.

Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def choose_tokens(
    logits_BV: jax.Array,
    row_keys_B2: jax.Array,
    index_B: jax.Array,
    temperature: jax.Array | float,
    top_p: jax.Array | float,
    top_k: jax.Array | int,
) -> jax.Array:
    """Draws a token per row by the Gumbel-max trick; temperature 0 is argmax and draws nothing.

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
        noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, logits_BV.shape[-1:], jnp.float32))(keys_B)
        return jnp.argmax(kept_BV + noise_BV, axis=-1)

    def greedy(logits_BV: jax.Array) -> jax.Array:
        return jnp.argmax(logits_BV, axis=-1)

    return jax.lax.cond(temperature == 0, greedy, draw, logits_BV).astype(jnp.int32)


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
