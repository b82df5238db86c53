"""The real jitted steps with shapes in place of arrays, for a mesh of devices that need not exist."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.mesh import batch_sharding
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.core.topology import Topology
from w2sr_jax.data.pack import Batch
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.state import abstract_state, tree_shardings
from w2sr_jax.learn.step import make_sft_step
from w2sr_jax.model import sampler
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder, abstract_params


@dataclasses.dataclass(frozen=True, slots=True)
class Traced:
    """A step, traced, and the bytes that one chip holds of each kind of its arguments (padding not counted)."""

    traced: Any  # jax.stages.Traced
    argument_bytes: dict[str, int]


def devices_of(topology: Topology) -> list[Any]:
    """Devices to compile for; of a TPU slice they are descriptions."""
    if topology.chip is None:
        return jax.devices()[: topology.devices]
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology.name).devices)


def sft_step(
    model: ModelConfig, optimizer: OptimizerConfig, train: TrainConfig, mesh: Mesh, rows: int, length: int
) -> Traced:
    """One update of `w2sr sft` on a batch of `rows` rows of `length` tokens."""

    def build() -> Decoder:
        return Decoder(
            model,
            rngs=nnx.Rngs(0),
            dtype=jnp.dtype(train.dtype),
            scan_layers=train.scan_layers,
            remat=train.remat,
            attention=train.attention,
        )

    graphdef, params = nnx.split(nnx.eval_shape(build))
    state = abstract_state(params, make_optimizer(optimizer), mesh)

    def field(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((rows, length), dtype, sharding=batch_sharding(mesh))

    batch = Batch(*(field(d) for d in (jnp.int32, jnp.int32, jnp.float32, jnp.int32, jnp.int32)))
    step: Any = make_sft_step(graphdef, optimizer, train, mesh)  # a jitted function
    traced = step.trace(state, batch, 1e-5)
    kinds = {"parameters": state.params, "optimizer": (state.opt_state, state.step), "batch": batch}
    return Traced(traced, {kind: shard_bytes(tree) for kind, tree in kinds.items()})


def decode_step(model: ModelConfig, dtype: str, mesh: Mesh, rows: int, slots: int) -> Traced:
    """The decode loop of the JAX engine over a cache of `slots` slots; its weights are in `dtype`."""
    params = abstract_params(model, jnp.dtype(dtype))
    params = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, tree_shardings(params, mesh)
    )
    traced, state = sampler.trace_decode(model, jnp.dtype(dtype), params, rows, slots, mesh)
    return Traced(traced, {"parameters": shard_bytes(params), "cache": shard_bytes(state)})


def shard_bytes(tree: Any) -> int:
    """Bytes that one device holds of arrays or of shapes with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
