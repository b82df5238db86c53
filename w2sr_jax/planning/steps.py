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
from w2sr_jax.core.mesh import LogicalAxis, batch_sharding, replicated, sharding
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.core.topology import Topology
from w2sr_jax.data.pack import Batch
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.state import abstract_state, tree_shardings
from w2sr_jax.learn.step import make_sft_step
from w2sr_jax.model import decode_loop
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decode_loop import Request, State
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.kv_cache import KEY_AXES, VALUE_AXES, Cache
from w2sr_jax.model.params import abstract_params
from w2sr_jax.model.sampler import graphdef_of


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

    def shape(dims: tuple[int, ...], kind: Any, axes: tuple[LogicalAxis, ...] | None = None) -> Any:
        where = sharding(axes or ("batch", *(None for _ in dims[1:])), dims, mesh) if dims else replicated(mesh)
        return jax.ShapeDtypeStruct(dims, kind, sharding=where)

    L, K, H, kind = model.num_layers, model.num_kv_heads, model.head_dim, jnp.dtype(dtype)
    state = State(
        cache=Cache(shape((L, rows, K, H, slots), kind, KEY_AXES), shape((L, rows, K, slots, H), kind, VALUE_AXES)),
        slot=shape((), jnp.int32),
        first_B=shape((rows,), jnp.int32),
        newest_B=shape((rows,), jnp.int32),
        keys_B2=shape((rows, 2), jnp.uint32),
        tokens_BN=shape((rows, slots), jnp.int32),
        logprobs_BN=shape((rows, slots), jnp.float32),
        lengths_B=shape((rows,), jnp.int32),
        limits_B=shape((rows,), jnp.int32),
        done_B=shape((rows,), jnp.bool_),
    )
    request = Request(
        temperature=shape((), jnp.float32),
        top_p=shape((), jnp.float32),
        top_k=shape((), jnp.int32),
        stop_ids_K=shape((8,), jnp.int32, (None,)),
    )
    decode: Any = decode_loop.decode  # a jitted function
    traced = decode.trace(graphdef_of(model, kind), model, params, state, request, shape((), jnp.int32), mesh=mesh)
    return Traced(traced, {"parameters": shard_bytes(params), "cache": shard_bytes(state)})


def shard_bytes(tree: Any) -> int:
    """Bytes that one device holds of arrays or of shapes with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
