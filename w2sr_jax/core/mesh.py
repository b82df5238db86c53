"""The device mesh and the one table that maps logical axes to mesh axes.

Parameters, optimizer state, activations and checkpoints all derive their sharding from RULES, so that a change of
mesh is a change of one config line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.errors import UsageError, W2SRError

AXES = ("data", "fsdp", "tensor")

# A logical axis names what a dimension is; None keeps it whole on every device.
RULES: dict[str, tuple[str, ...] | None] = {
    # parameters
    "layers": None,
    "norm": None,
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    # activations
    "batch": ("data", "fsdp"),
    "length": None,
    "act_embed": None,
    "act_heads": ("tensor",),
    "act_kv_heads": ("tensor",),
    "act_mlp": ("tensor",),
    "act_vocab": ("tensor",),
}


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes data, fsdp, tensor over `devices` (default: all).

    Raises:
        UsageError: the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [config.data, config.fsdp, config.tensor]
    fixed = math.prod(s for s in sizes if s != -1)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        asked = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes))
        raise UsageError(f"config.mesh: {asked} does not make {len(devices)} devices ({devices[0].device_kind})")
    # Auto axes: the compiler propagates shardings; jax >= 0.12 would make Explicit ones by default.
    return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(logical_axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh, name: str = "") -> PartitionSpec:
    """The PartitionSpec of an array whose dimensions carry these logical axes.

    Raises:
        W2SRError: a dimension that its mesh axes do not divide; names the parameter, its shape and the axis.
    """
    if len(logical_axes) != len(shape):
        raise W2SRError(f"{name}: shape {tuple(shape)} does not have the logical axes {tuple(logical_axes)}")
    parts: list[Any] = []
    for axis, size in zip(logical_axes, shape):
        mesh_axes = tuple(a for a in (RULES[axis] or ()) if mesh.shape[a] > 1) if axis is not None else ()
        ways = math.prod(mesh.shape[a] for a in mesh_axes)
        if size % ways:
            raise W2SRError(
                f"{name}: dimension {axis!r} of shape {tuple(shape)} is not divisible by "
                f"{ways} ({' x '.join(f'{a}={mesh.shape[a]}' for a in mesh_axes)}); choose another config.mesh"
            )
        parts.append(mesh_axes if len(mesh_axes) > 1 else mesh_axes[0] if mesh_axes else None)
    while parts and parts[-1] is None:
        parts.pop()
    return PartitionSpec(*parts)


def sharding(logical_axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh, name: str = "") -> NamedSharding:
    """`spec` bound to the mesh."""
    return NamedSharding(mesh, spec(logical_axes, shape, mesh, name))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of an array whose first dimension is the global batch."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_ways(mesh: Mesh) -> int:
    """How many parts the global batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def mesh_or_none(config: MeshConfig) -> Mesh | None:
    """`make_mesh`, or None where one device is asked for, or there is only one: nothing is sharded then."""
    if (config.data, config.fsdp, config.tensor) == (1, 1, 1) and jax.process_count() == 1:
        return None  # the first device, however many others there are
    mesh = make_mesh(config)
    return mesh if mesh.size > 1 else None
