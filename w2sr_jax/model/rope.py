"""Rotary position embeddings (arXiv 2104.09864) in the half-split layout of Hugging Face, with Llama 3's scaling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from w2sr_jax.model.config import ModelConfig


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position of each of the H/2 rotated pairs, float32.

    Llama 3 divides wavelengths beyond the original context by `factor`, keeps the short ones and blends between.
    """
    inverse = 1.0 / config.rope_theta ** (np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim)
    if (scaling := config.rope_scaling) is None:
        return inverse.astype(np.float32)
    turns = scaling.original_max_position_embeddings * inverse / (2 * np.pi)  # within the original context
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return (inverse * (kept + (1.0 - kept) / scaling.factor)).astype(np.float32)


def rope_tables(config: ModelConfig, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) of every position, float32 [B, T, 1, H/2]."""
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * inverse_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BTNH: jax.Array, tables: tuple[jax.Array, jax.Array], scale: float = 1.0) -> jax.Array:
    """Applies the rotation, times `scale`, in float32 and returns the dtype of `x`."""
    cos, sin = (table * scale for table in tables)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BTNH.dtype)
