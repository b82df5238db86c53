"""What kernels have in common: padding of T, and one device's share of rows and heads."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

LANES = 128

Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def padded(x_BT: jax.Array, multiple: int) -> jax.Array:
    """Zeros after the last token up to a multiple of tokens: causal attention never looks there."""
    missing = -x_BT.shape[1] % multiple
    return jnp.pad(x_BT, [(0, 0), (0, missing)] + [(0, 0)] * (x_BT.ndim - 2)) if missing else x_BT


def on_devices(local: Attend, mesh: Mesh | None) -> Attend:
    """`local(q, k, v, segment_ids)` on each device's rows and heads.

    Key heads that are fewer than the tensor axis has devices are on all of them, and each takes the one it needs
    (`refusal` makes sure that it is one).
    """
    if mesh is None:
        return local
    rows, tensor = ("data", "fsdp"), mesh.shape["tensor"]

    def call(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
        heads, kv_heads = q_BTNH.shape[2], k_BTKH.shape[2]
        whole = kv_heads < tensor

        def part(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
            if whole:
                mine = jax.lax.axis_index("tensor") * (heads // tensor) // (heads // kv_heads)
                k, v = (jax.lax.dynamic_slice_in_dim(x, mine, 1, axis=2) for x in (k, v))
            return local(q, k, v, segments)

        split = PartitionSpec(rows, None, "tensor")
        kv_split = PartitionSpec(rows) if whole else split
        specs = (split, kv_split, kv_split, PartitionSpec(rows))
        return jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(
            q_BTNH, k_BTKH, v_BTKH, segment_ids_BT
        )

    return call


def on_hopper(mesh: Mesh | None) -> bool:
    """Whether the devices are NVIDIA GPUs of compute capability 9.0 or more, which kernels here are made for."""
    device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
    return device.platform == "gpu" and float(getattr(device, "compute_capability", 0.0)) >= 9.0


def refusal(q_shape: tuple[int, ...], kv_heads: int, mesh: Mesh | None) -> str:
    """Why a kernel cannot take queries [B, T, N, H] on this mesh; empty if it can."""
    rows, length, heads, width = q_shape
    if length < LANES:
        return f"rows of {length} tokens are shorter than a block of {LANES}"
    if width % 64:
        return f"a head dimension of {width} is no multiple of 64"
    if mesh is None:
        return ""
    groups, tensor = mesh.shape["data"] * mesh.shape["fsdp"], mesh.shape["tensor"]
    if rows % groups:
        return f"{rows} rows do not split over data x fsdp = {groups}"
    if heads % tensor:
        return f"{heads} heads do not split over tensor = {tensor}"
    if kv_heads >= tensor and kv_heads % tensor:
        return f"{kv_heads} key heads do not split over tensor = {tensor}"
    if kv_heads < tensor and (heads // kv_heads) % (heads // tensor):
        return f"on tensor = {tensor} a device's query heads do not share one of {kv_heads} key heads"
    return ""
