"""What training carries from step to step, and where on the mesh each piece of it lives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from w2sr_jax.core import mesh as mesh_lib
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.learn.optim import OnHost
from w2sr_jax.model import hf
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.params import is_norm


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters and optimizer state share one structure and one sharding. All of it is donated to each step."""

    params: Any  # nnx.State of float32 nnx.Param
    opt_state: Any  # optax state; its moments are trees like params
    step: jax.Array  # int32 scalar: updates done


def load_model(directory: Path, mesh: Mesh | None, train: TrainConfig) -> Decoder:
    """A model to train: float32 weights, and the forward pass that `train` asks for."""
    return hf.load(
        directory,
        mesh,
        compute_dtype=train.dtype,
        scan_layers=train.scan_layers,
        remat=train.remat,
        attention=train.attention,
    )


def frozen(params: Any, dtype: str) -> Any:
    """A reference for GRPO: a copy, since updates donate the policy's own buffers.

    No update rounds it, so that it need not be finer than what a pass computes in: norms in float32, all else in dtype.
    """

    def copy(param: nnx.Variable[Any]) -> nnx.Variable[Any]:
        return param.replace(jnp.array(param.get_value(), None if is_norm(param) else dtype))

    return jax.tree.map(copy, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def init_state(params: Any, optimizer: optax.GradientTransformation, mesh: Mesh | None = None) -> TrainState:
    """The state before the first update.

    It takes `params` over: the first step donates their buffers, so whoever needs them later (the frozen reference of
    GRPO) copies them first.
    """

    def fresh(params: Any) -> tuple[Any, jax.Array]:
        return optimizer.init(params), jnp.int32(0)

    if mesh is None and not isinstance(optimizer, OnHost):
        return TrainState(params, *fresh(params))  # not committed to their device, like the parameters
    where = state_shardings(jax.eval_shape(lambda p: TrainState(p, *fresh(p)), params), optimizer, mesh)
    return TrainState(params, *jax.jit(fresh, out_shardings=(where.opt_state, where.step))(params))


def abstract_state(params: Any, optimizer: optax.GradientTransformation, mesh: Mesh | None = None) -> TrainState:
    """Shapes, dtypes and shardings of `init_state(params, ...)`, for restoring; params may be abstract themselves."""
    state = jax.eval_shape(lambda p: TrainState(p, optimizer.init(p), jnp.int32(0)), params)
    shardings = state_shardings(state, optimizer, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def state_shardings(state: TrainState, optimizer: optax.GradientTransformation, mesh: Mesh | None) -> TrainState:
    """`tree_shardings` of a state, in the host's memory where the optimizer wants its own there."""
    found = tree_shardings(state, mesh)
    if not isinstance(optimizer, OnHost):
        return found
    return dataclasses.replace(
        found, opt_state=jax.tree.map(lambda s: s.with_memory_kind("pinned_host"), found.opt_state)
    )


def tree_shardings(tree: Any, mesh: Mesh | None) -> Any:
    """A tree like `tree` whose leaves are shardings: parameters (and moments) by logical axes, other leaves replicated.

    Without a mesh everything lives on the first device.

    Raises:
        W2SRError: a dimension that the mesh does not divide, by the parameter's name.
    """

    def place(path: Any, leaf: Any) -> Any:
        where = SingleDeviceSharding(jax.local_devices()[0]) if mesh is None else mesh_lib.replicated(mesh)
        if not isinstance(leaf, nnx.Variable):
            return where
        if mesh is not None:
            axes, name = leaf.get_metadata("logical_axes"), leaf_name(path)
            where = mesh_lib.sharding(axes, leaf.get_value().shape, mesh, name)
        return leaf.replace(where)

    return jax.tree_util.tree_map_with_path(place, tree, is_leaf=lambda x: isinstance(x, nnx.Variable))


def leaf_name(path: Any) -> str:
    """A leaf's place in the tree: params.layers.q"""
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def shard_batch(batch: Any, mesh: Mesh, rows: int | None = None) -> Any:
    """A global batch as global arrays, split over data and fsdp.

    Args:
        batch: numpy arrays: all rows, the same on every process; or with `rows` those of `mesh.local_rows`.
        rows: of the global batch.

    Raises:
        UsageError: the rows cannot be split evenly.
    """
    rows = len(jax.tree.leaves(batch)[0]) if rows is None else rows
    if rows % mesh_lib.batch_ways(mesh):
        raise UsageError(
            f"batch of {rows} rows does not split over data x fsdp = {mesh_lib.batch_ways(mesh)} device groups"
        )
    return jax.tree.map(lambda x: mesh_lib.place_rows(x, mesh, rows), batch)


def place_batch(batch: Any, mesh: Mesh | None, rows: int | None = None) -> Any:
    """A batch of numpy arrays on the mesh (`shard_batch`), or on the default device without one."""
    return jax.device_put(batch) if mesh is None else shard_batch(batch, mesh, rows)


def place_rate(rate: float, mesh: Mesh | None) -> jax.Array:
    """A learning rate on every device of the mesh. It is sent like a batch, so that a step itself transfers nothing."""
    if mesh is None:
        return jax.device_put(np.float32(rate))
    return jax.make_array_from_callback((), mesh_lib.replicated(mesh), lambda _: np.float32(rate))
