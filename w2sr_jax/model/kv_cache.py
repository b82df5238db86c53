"""The key-value cache: keys and values of past tokens.

Shape letters: L layers, B rows, K kv heads, H head dim, S slots, t = S / C tiles of C = TILE slots. Keys have their
slots last and values before the last axis, so that both sums of attention over one query run along memory. Either is
one array stacked over layers, or a tuple of one array a layer: then a layer is written and read without touching the
others. On a CPU a layer's keys lie in tiles, each of them in one piece: read as a whole they are twice as slow.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from w2sr_jax.core.mesh import constrain
from w2sr_jax.model.config import ModelConfig

KEY_SLOTS, VALUE_SLOTS = -1, -2  # axes, counted from the end: the same with and without L in front
TILE_AXIS, TILE = 2, 64
KEY_AXES = ("layers", "batch", "act_kv_heads", None, "length")  # of a stacked cache
VALUE_AXES = ("layers", "batch", "act_kv_heads", "length", None)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["k", "v"], meta_fields=[])
@dataclasses.dataclass(frozen=True, slots=True)
class Cache:
    """What a decoder remembers. Which slots of a row are filled, its user knows."""

    k: Any  # [L, B, K, H, S], or a tuple of [B, K, H, S] or [B, K, t, H, C]
    v: Any  # [L, B, K, S, H], or a tuple of [B, K, S, H]

    @classmethod
    def empty(
        cls, config: ModelConfig, rows: int, slots: int, dtype: Any, *, by_layer: bool, tiled: bool = False
    ) -> Self:
        """Zeros; a layer's keys `tiled` if their slots are a multiple of TILE."""
        heads = rows, config.num_kv_heads
        k: tuple[int, ...] = (*heads, config.head_dim, slots)
        v = (*heads, slots, config.head_dim)
        if not by_layer:
            return cls(jnp.zeros((config.num_layers, *k), dtype), jnp.zeros((config.num_layers, *v), dtype))
        if tiled and slots % TILE == 0:
            k = (*heads, slots // TILE, config.head_dim, TILE)
        layers = range(config.num_layers)
        return cls(tuple(jnp.zeros(k, dtype) for _ in layers), tuple(jnp.zeros(v, dtype) for _ in layers))

    @property
    def length(self) -> int:
        """Slots."""
        return jax.tree.leaves(self.v)[0].shape[VALUE_SLOTS]

    @property
    def tile(self) -> int:
        """Slots that `shift` cannot part."""
        return TILE if self._tiled else 1

    @property
    def _by_layer(self) -> bool:
        return isinstance(self.k, tuple)

    @property
    def _tiled(self) -> bool:
        return self._by_layer and self.k[0].ndim > self.v[0].ndim

    def take(self, rows_R: jax.Array) -> Self:
        """A cache of these rows."""
        return jax.tree.map(lambda x: jnp.take(x, rows_R, axis=0 if self._by_layer else 1), self)

    def grow(self, length: int) -> Self:
        """The same cache with empty slots added at the end, `length` in all; of tiles, whole ones."""

        assert (length - self.length) % self.tile == 0

        def widen(x: jax.Array, axis: int, tile: int) -> jax.Array:
            pad = [(0, 0)] * x.ndim
            pad[axis] = (0, (length - self.length) // tile)
            return jnp.pad(x, pad)

        return self._each(widen)

    def shift(self, by: jax.Array) -> Self:
        """Every slot moved `by`, a multiple of `tile`, to the front; what moves out at the front is lost."""
        return self._each(lambda x, axis, tile: jnp.roll(x, -by // tile, axis))

    def insert(self, other: Self, sources_R: jax.Array, rows_R: jax.Array, count: jax.Array, end: jax.Array) -> Self:
        """Rows of another cache written over rows of this one, so that their last slot lies before slot `end`.

        Args:
            other: without tiles.
            sources_R: which row of `other`.
            rows_R: which row of this one.
            count: how many of the R pairs count.
        """
        rows, first = 0 if self._by_layer else 1, end - other.length

        def put(i: jax.Array, cache: Self) -> Self:
            def one(x: jax.Array, new: jax.Array, axis: int) -> jax.Array:
                row = jax.lax.dynamic_index_in_dim(new, sources_R[i], axis=rows)
                start: list[Any] = [0] * x.ndim
                start[rows], start[axis] = rows_R[i], first
                if x.ndim > new.ndim:
                    row, start[axis] = _in_tiles(row, first, x.shape[axis])
                return jax.lax.dynamic_update_slice(x, row, start)

            keys = TILE_AXIS if self._tiled else KEY_SLOTS
            return type(self)(
                jax.tree.map(lambda x, new: one(x, new, keys), cache.k, other.k),
                jax.tree.map(lambda x, new: one(x, new, VALUE_SLOTS), cache.v, other.v),
            )

        return jax.lax.fori_loop(0, count, put, self)

    def on(self, mesh: Mesh | None, rows: str | None = "batch") -> Self:
        """A stacked cache kept where core/mesh.py says, inside a jitted function; with None all rows everywhere."""
        keys, values = ((layers, rows, *others) for layers, _, *others in (KEY_AXES, VALUE_AXES))
        return type(self)(constrain(self.k, keys, mesh), constrain(self.v, values, mesh))

    def _each(self, change: Callable[[jax.Array, int, int], jax.Array]) -> Self:
        """`change` of every array, along its axis of slots, or of tiles of so many."""
        keys = (TILE_AXIS, TILE) if self._tiled else (KEY_SLOTS, 1)
        return type(self)(
            jax.tree.map(lambda x: change(x, *keys), self.k), jax.tree.map(lambda x: change(x, VALUE_SLOTS, 1), self.v)
        )


def write_key(keys: jax.Array, key_BKH: jax.Array, slot: jax.Array) -> jax.Array:
    """A layer's keys, in tiles or not, with a token's in a slot."""
    if keys.ndim == 4:
        return jax.lax.dynamic_update_slice(keys, key_BKH[..., None], (0, 0, 0, slot))
    return jax.lax.dynamic_update_slice(keys, key_BKH[:, :, None, :, None], (0, 0, slot // TILE, 0, slot % TILE))


def _in_tiles(row_1KHP: jax.Array, first: jax.Array, tiles: int) -> tuple[jax.Array, jax.Array]:
    """([1, K, n, H, C] with a row's slots where they lie in n tiles from there on, the first of these tiles).

    What else is in these tiles is lost: the row's slots before its prompt, which nobody reads, and after it, which are
    written before they are read.
    """
    _, K, H, P = row_1KHP.shape
    n = min(tiles, -(-P // TILE) + 1)
    tile = jnp.minimum(first // TILE, tiles - n)
    empty = jnp.zeros((1, K, H, n * TILE), row_1KHP.dtype)
    placed = jax.lax.dynamic_update_slice(empty, row_1KHP, (0, 0, 0, first - tile * TILE))
    return placed.reshape(1, K, H, n, TILE).transpose(0, 1, 3, 2, 4), tile
