"""The key-value cache: keys and values of past tokens, stacked over layers, with the position id of every slot."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from w2sr_jax.core.mesh import constrain
from w2sr_jax.model.config import ModelConfig


@functools.partial(jax.tree_util.register_dataclass, data_fields=["k_LBSKH", "v_LBSKH", "positions_BS"], meta_fields=[])
@dataclasses.dataclass(frozen=True, slots=True)
class Cache:
    """What a decoder remembers of the tokens it has seen."""

    k_LBSKH: jax.Array
    v_LBSKH: jax.Array
    positions_BS: jax.Array  # int32; -1 is an empty slot or padding

    @classmethod
    def zeros(cls, config: ModelConfig, batch: int, length: int, dtype: Any) -> Self:
        """An empty cache of `length` slots for each of `batch` rows."""
        shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.full((batch, length), -1, jnp.int32))

    def grow(self, length: int) -> Self:
        """The same cache with empty slots added at the end, `length` in all."""
        more = length - self.positions_BS.shape[1]
        widen = ((0, 0), (0, 0), (0, more), (0, 0), (0, 0))
        positions_BS = jnp.pad(self.positions_BS, ((0, 0), (0, more)), constant_values=-1)
        return type(self)(jnp.pad(self.k_LBSKH, widen), jnp.pad(self.v_LBSKH, widen), positions_BS)

    def repeat(self, copies: int) -> Self:
        """Each row `copies` times, the copies side by side."""
        k, v = (jnp.repeat(x, copies, axis=1) for x in (self.k_LBSKH, self.v_LBSKH))
        return type(self)(k, v, jnp.repeat(self.positions_BS, copies, axis=0))

    def on(self, mesh: Mesh | None) -> Self:
        """The same cache kept where core/mesh.py says, inside a jitted function."""
        axes = ("layers", "batch", "length", "act_kv_heads", None)
        k, v = (constrain(x, axes, mesh) for x in (self.k_LBSKH, self.v_LBSKH))
        return type(self)(k, v, constrain(self.positions_BS, ("batch", "length"), mesh))
