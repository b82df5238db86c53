"""The device mesh and the one table that maps logical axes to mesh axes.

Parameters, optimizer state, activations and checkpoints all derive their sharding from RULES, so that a change of
mesh is a change of one config line. The mesh may span many processes; `local_rows` says which rows of a global batch
the devices of this one hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from w2sr_jax.core import processes
from w2sr_jax.core.compilation_cache import keep_compiled_programs
from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.errors import UsageError, W2SRError

AXES = ("data", "fsdp", "tensor")
LARGE = 64 * 2**20  # bytes: a parameter of this size that every device holds whole is worth a warning

# What a dimension is: a name in RULES; with a number, it consists of so many parts (heads) that must stay whole; None
# keeps it on every device.
LogicalAxis = str | tuple[str, int] | None

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
    "act_rows": ("data",),  # of what is split along D over fsdp
    "length": None,
    "act_embed": None,
    "act_heads": ("tensor",),
    "act_kv_heads": ("tensor",),
    "act_mlp": ("tensor",),
    "act_vocab": ("tensor",),
}
# Where there are more devices along the mesh axis than parts, each device holds all of them.
REPLICATED_WHEN_FEWER = ("kv_heads", "act_kv_heads")


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
    return Mesh(_arranged(devices, sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _arranged(devices: list[jax.Device], sizes: list[int]) -> np.ndarray:
    """The devices in the mesh's shape: on a TPU slice so that neighbours on the mesh are neighbours on its wires.

    Elsewhere, and on several slices, in JAX's order, which keeps a process, and a slice, together.
    """
    if devices[0].platform == "tpu" and len({getattr(d, "slice_index", 0) for d in devices}) == 1:
        try:
            return jax.make_mesh(sizes, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES)).devices
        except NotImplementedError as error:  # a shape that the slice's own does not factor into
            logging.warning("config.mesh: %s; using the devices in their plain order", str(error).split("\n")[0])
    return np.array(devices).reshape(sizes)


def spec(logical_axes: Sequence[LogicalAxis], shape: Sequence[int], mesh: Mesh, name: str = "") -> PartitionSpec:
    """The PartitionSpec of an array whose dimensions carry these logical axes.

    Raises:
        W2SRError: a dimension that its mesh axes do not divide; names the parameter, its shape and the axis.
    """
    if len(logical_axes) != len(shape):
        raise W2SRError(f"{name}: shape {tuple(shape)} does not have the logical axes {tuple(logical_axes)}")
    entries: list[Any] = []
    for logical, size in zip(logical_axes, shape):
        axis, parts = logical if isinstance(logical, tuple) else (logical, size)
        mesh_axes = tuple(a for a in (RULES[axis] or ()) if mesh.shape[a] > 1) if axis is not None else ()
        ways = math.prod(mesh.shape[a] for a in mesh_axes)
        if axis in REPLICATED_WHEN_FEWER and parts < ways:
            mesh_axes = ()
        elif parts % ways:
            what = f" ({parts} heads)" if parts != size else ""
            raise W2SRError(
                f"{name}: dimension {axis!r} of shape {tuple(shape)}{what} is not divisible by "
                f"{ways} ({' x '.join(f'{a}={mesh.shape[a]}' for a in mesh_axes)}); choose another config.mesh"
            )
        entries.append(mesh_axes if len(mesh_axes) > 1 else mesh_axes[0] if mesh_axes else None)
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def sharding(logical_axes: Sequence[LogicalAxis], shape: Sequence[int], mesh: Mesh, name: str = "") -> NamedSharding:
    """`spec` bound to the mesh."""
    return NamedSharding(mesh, spec(logical_axes, shape, mesh, name))


def constrain(x: jax.Array, logical_axes: Sequence[LogicalAxis], mesh: Mesh | None) -> jax.Array:
    """Keeps an activation where the table says, inside a jitted function; without a mesh it is `x` itself."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, sharding(logical_axes, x.shape, mesh, "activation"))


def warn_of_replicas(placed: dict[str, jax.Array], mesh: Mesh) -> None:
    """One warning, with the bytes, for the large parameters that every device of the mesh holds whole."""
    whole = {name: x.nbytes for name, x in placed.items() if x.sharding.is_fully_replicated and x.nbytes >= LARGE}
    if whole and mesh.size > 1:
        logging.warning(
            "every one of %d devices holds %d bytes of parameters whole: %s; config.mesh.fsdp splits them",
            *(mesh.size, sum(whole.values()), ", ".join(f"{name} {size}" for name, size in whole.items())),
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of an array whose first dimension is the global batch."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_ways(mesh: Mesh) -> int:
    """How many parts the global batch is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def local_rows(mesh: Mesh, rows: int) -> list[int]:
    """Which of the `rows` rows of a global batch the devices of this process hold, in increasing order.

    Processes that share a row's devices along the tensor axis hold the same rows.

    Raises:
        UsageError: the rows do not split evenly.
    """
    if rows % batch_ways(mesh):
        raise UsageError(f"batch of {rows} rows does not split over data x fsdp = {batch_ways(mesh)} device groups")
    held = batch_sharding(mesh).addressable_devices_indices_map((rows,))
    return sorted({row for index in held.values() if index is not None for row in range(rows)[index[0]]})


def place_rows(x: np.ndarray, mesh: Mesh, rows: int) -> jax.Array:
    """A global array of `rows` rows, split over data and fsdp, of the rows that `local_rows` names, or of all rows."""
    mine = range(rows) if len(x) == rows else local_rows(mesh, rows)

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        start, stop, _ = (index[0] if index else slice(None)).indices(rows)
        first = mine.index(start)
        return x[first : first + stop - start]

    return jax.make_array_from_callback((rows, *x.shape[1:]), batch_sharding(mesh), part)


def on_one_cpu(mesh: Mesh | None) -> bool:
    """Whether a program of that mesh is one of a single CPU device, some of which are written otherwise."""
    return mesh is None and platform(mesh) == "cpu"


def platform(mesh: Mesh | None) -> str:
    """What a program of that mesh runs on: "cpu", "gpu" or "tpu"."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def mesh_or_none(config: MeshConfig) -> Mesh | None:
    """`make_mesh`, or None where one device is asked for, or there is only one: nothing is sharded then.

    Raises:
        UsageError: as `make_mesh`; or this is one of several processes that were not started as such.
    """
    if jax.process_count() != processes.count():
        raise UsageError(f"this is one of {jax.process_count()} processes; start each with --distributed")
    keep_compiled_programs(jax.default_backend())
    if (config.data, config.fsdp, config.tensor) == (1, 1, 1) and jax.process_count() == 1:
        return None  # the first device, however many others there are
    mesh = make_mesh(config)
    return mesh if mesh.size > 1 else None


def local_mesh_or_none() -> Mesh | None:
    """The devices of this process alone under FSDP, for what one of several processes computes by itself.

    None where it has one.
    """
    devices = jax.local_devices()
    return make_mesh(MeshConfig(), devices) if len(devices) > 1 else None
