"""The key-value cache: keys and values of past tokens.

Shape letters: L layers, B rows, K kv heads, H head dim, S slots. Keys have their slots last and values before the last
axis, so that both sums of attention over one query run along memory. Either is one array stacked over layers, or a
tuple of one array a layer: then a layer is written and read without touching the others.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from w2sr_jax.core.mesh import constrain
from w2sr_jax.model.config import ModelConfig

ROWS = -4  # the axis, counted from the end: the same with and without L in front
KEY_SLOTS, VALUE_SLOTS = -1, -2
KEY_AXES = ("layers", "batch", "act_kv_heads", None, "length")  # of a stacked cache
VALUE_AXES = ("layers", "batch", "act_kv_heads", "length", None)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["k", "v"], meta_fields=[])
@dataclasses.dataclass(frozen=True, slots=True)
class Cache:
    """What a decoder remembers. Which slots of a row are filled, its user knows."""

    k: Any  # [L, B, K, H, S], or a tuple of [B, K, H, S]
    v: Any  # [L, B, K, S, H], or a tuple of [B, K, S, H]

    @classmethod
    def empty(cls, config: ModelConfig, rows: int, slots: int, dtype: Any, *, by_layer: bool) -> Self:
        """Zeros."""
        heads = rows, config.num_kv_heads
        k, v = (*heads, config.head_dim, slots), (*heads, slots, config.head_dim)
        if by_layer:
            layers = range(config.num_layers)
            return cls(tuple(jnp.zeros(k, dtype) for _ in layers), tuple(jnp.zeros(v, dtype) for _ in layers))
        return cls(jnp.zeros((config.num_layers, *k), dtype), jnp.zeros((config.num_layers, *v), dtype))

    @property
    def length(self) -> int:
        """Slots."""
        return jax.tree.leaves(self.k)[0].shape[KEY_SLOTS]

    def repeat(self, copies: int) -> Self:
        """Each row `copies` times, the copies side by side."""
        return jax.tree.map(lambda x: jnp.repeat(x, copies, axis=ROWS), self)

    def take(self, rows_R: jax.Array) -> Self:
        """A cache of these rows."""
        return jax.tree.map(lambda x: jnp.take(x, rows_R, axis=ROWS), self)

    def grow(self, length: int) -> Self:
        """The same cache with empty slots added at the end, `length` in all."""

        def widen(x: jax.Array, axis: int) -> jax.Array:
            pad = [(0, 0)] * x.ndim
            pad[axis] = (0, length - self.length)
            return jnp.pad(x, pad)

        return self._each(widen)

    def shift(self, by: jax.Array) -> Self:
        """Every slot moved `by` to the front; what moves out at the front is lost."""
        return self._each(lambda x, axis: jnp.roll(x, -by, axis))

    def insert(self, other: Self, sources_R: jax.Array, rows_R: jax.Array, count: jax.Array, end: jax.Array) -> Self:
        """Rows of another cache written over rows of this one, so that their last slot lies before slot `end`.

        Args:
            sources_R: which row of `other`.
            rows_R: which row of this one.
            count: how many of the R pairs count.
        """

        def put(i: jax.Array, cache: Self) -> Self:
            def one(x: jax.Array, new: jax.Array, axis: int) -> jax.Array:
                row = jax.lax.dynamic_index_in_dim(new, sources_R[i], axis=new.ndim + ROWS)
                start: list[Any] = [0] * x.ndim
                start[ROWS], start[axis] = rows_R[i], end - other.length
                return jax.lax.dynamic_update_slice(x, row, start)

            return type(self)(
                jax.tree.map(lambda x, new: one(x, new, KEY_SLOTS), cache.k, other.k),
                jax.tree.map(lambda x, new: one(x, new, VALUE_SLOTS), cache.v, other.v),
            )

        return jax.lax.fori_loop(0, count, put, self)

    def on(self, mesh: Mesh | None, rows: str | None = "batch") -> Self:
        """A stacked cache kept where core/mesh.py says, inside a jitted function; with None all rows everywhere."""
        keys, values = ((layers, rows, *others) for layers, _, *others in (KEY_AXES, VALUE_AXES))
        return type(self)(constrain(self.k, keys, mesh), constrain(self.v, values, mesh))

    def _each(self, change: Any) -> Self:
        return type(self)(
            jax.tree.map(lambda x: change(x, KEY_SLOTS), self.k), jax.tree.map(lambda x: change(x, VALUE_SLOTS), self.v)
        )
