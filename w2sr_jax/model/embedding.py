"""The embedding of tokens on a mesh: rows travel, the table does not.

Every device holds its own columns of the table (and, on the tensor axis, its own part of the vocabulary). It looks up
the tokens of its whole fsdp group in them, and an all-to-all turns columns of all rows into all columns of its own
rows. The gradient goes the same way back into a scatter-add on its own columns, so that neither the table nor its
gradient, which are a hundred times larger than a microbatch's activations, is ever gathered or reduced over fsdp.

Shape letters: B rows, T time, D model, V vocab.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from w2sr_jax.core import mesh as mesh_lib


def embed(table_VD: jax.Array, tokens_BT: jax.Array, dtype: Any, mesh: Mesh | None) -> jax.Array:
    """Embedded tokens [B, T, D] in `dtype`; ids outside of the vocabulary take its nearest end.

    Args:
        mesh: where rows and table are split; B must split over its data axes.
    """
    if mesh is None:
        return table_VD.at[tokens_BT].get(mode="clip").astype(dtype)
    return _embed(table_VD, tokens_BT, jnp.dtype(dtype), mesh)


ROWS = PartitionSpec(("data", "fsdp"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _embed(table_VD: jax.Array, tokens_BT: jax.Array, dtype: Any, mesh: Mesh) -> jax.Array:
    size = table_VD.shape[0]

    def local(table: jax.Array, tokens: jax.Array) -> jax.Array:
        places, here = _places(tokens, size, table.shape[0])
        found = jnp.where(here[..., None], table.at[places].get(mode="clip").astype(dtype), 0)
        if mesh.shape["tensor"] > 1:
            found = jax.lax.psum(found, "tensor")  # all but one of the addends are zero
        return jax.lax.all_to_all(found, "fsdp", split_axis=0, concat_axis=2, tiled=True)

    return _shard_map(local, mesh, (_table_spec(table_VD.shape, mesh), ROWS), ROWS)(table_VD, tokens_BT)


def _embed_forward(table_VD: jax.Array, tokens_BT: jax.Array, dtype: Any, mesh: Mesh) -> Any:
    # The table itself is kept for its shape and dtype alone, which costs nothing: it is a parameter.
    return _embed(table_VD, tokens_BT, dtype, mesh), (table_VD, tokens_BT)


def _embed_backward(dtype: Any, mesh: Mesh, residuals: Any, dout_BTD: jax.Array) -> Any:
    table_VD, tokens_BT = residuals
    size = table_VD.shape[0]

    def local(table: jax.Array, tokens: jax.Array, dout: jax.Array) -> jax.Array:
        places, here = _places(tokens, size, table.shape[0])
        dout = jax.lax.all_to_all(dout, "fsdp", split_axis=2, concat_axis=0, tiled=True)
        dout = jnp.where(here[..., None], dout, 0).astype(jnp.float32)
        dtable = jnp.zeros(table.shape, jnp.float32).at[places].add(dout, mode="clip")
        return jax.lax.psum(dtable, "data").astype(table.dtype)

    spec = _table_spec(table_VD.shape, mesh)
    return _shard_map(local, mesh, (spec, ROWS, ROWS), spec)(table_VD, tokens_BT, dout_BTD), None


_embed.defvjp(_embed_forward, _embed_backward)


def _places(tokens_bT: jax.Array, size: int, held: int) -> tuple[jax.Array, jax.Array]:
    """(rows of this device's table, whether they are here) of the tokens of all rows of the fsdp group."""
    tokens_BT = jnp.clip(jax.lax.all_gather(tokens_bT, "fsdp", axis=0, tiled=True), 0, size - 1)
    places_BT = tokens_BT - jax.lax.axis_index("tensor") * held
    here_BT = (places_BT >= 0) & (places_BT < held)
    return jnp.where(here_BT, places_BT, 0), here_BT


def _table_spec(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    return mesh_lib.spec(("vocab", "embed"), shape, mesh, "embed")


def _shard_map(function: Any, mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
