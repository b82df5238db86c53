"""Devices that are there, that compute what they should, and that reach each other: count, mesh, matmul, all-reduce."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.mesh import AXES, make_mesh
from w2sr_jax.health.check import FAIL, PASS, WARN, Check

SIDE = 256  # of the matrices
REPEATS = 5
MIB = 1 << 20


def local_devices() -> dict[str, Any]:
    """What this process has: {"kinds": {kind: count}}, as JSON."""
    kinds = [device.device_kind for device in jax.local_devices()]
    return {"kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}


def check_devices(of_processes: Sequence[dict[str, Any]], who: Sequence[str], count: int, kind: str) -> Check:
    """The same devices on every host, as many in all as `count` (0: any), all of `kind` (empty: any)."""
    shown = [", ".join(f"{n} {name}" for name, n in one["kinds"].items()) or "none" for one in of_processes]
    total = sum(sum(one["kinds"].values()) for one in of_processes)
    found = f"{total} devices: {shown[0]}" + (f" on each of {len(shown)} processes" if len(shown) > 1 else "")
    for place, here in enumerate(shown):
        if here != shown[0]:
            remedy = "every host needs the same devices; one may be broken, hidden or in use"
            return Check("devices", FAIL, f"{who[place]} has {here}, {who[0]} has {shown[0]}", remedy)
    if count and total != count:
        remedy = "wait for missing hosts, start with --distributed, or correct --config.devices"
        return Check("devices", FAIL, f"{found}; config.devices={count}", remedy)
    if kind and any(name != kind for one in of_processes for name in one["kinds"]):
        remedy = "install the extra for this accelerator (cuda, tpu), or correct --config.device_kind"
        return Check("devices", FAIL, f"{found}; config.device_kind={kind}", remedy)
    return Check("devices", PASS, found)


def check_mesh(config: MeshConfig) -> Check:
    """Whether the configured mesh takes all devices."""
    sizes, count = (config.data, config.fsdp, config.tensor), jax.device_count()
    if sizes == (1, 1, 1) and jax.process_count() == 1:
        if count > 1:
            remedy = "--config.mesh.fsdp=-1 takes all"
            return Check("mesh", WARN, f"one device; {count - 1} others are left out", remedy)
        return Check("mesh", PASS, "one device")
    try:
        mesh = make_mesh(config)
    except UsageError as error:
        return Check("mesh", FAIL, str(error), f"the product of --config.mesh.* must be {count}; one of them may be -1")
    return Check("mesh", PASS, " x ".join(f"{axis}={mesh.shape[axis]}" for axis in AXES))


def check_matmul() -> Check:
    """Small integers in bfloat16, whose product is exact in float32, on every device of this process."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, (SIDE, SIDE)) for _ in range(2))
    multiply = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))
    wrong = []
    for device in jax.local_devices():
        found = multiply(*(jax.device_put(x.astype(jnp.bfloat16), device) for x in (a, b)))
        if not exact(np.asarray(found), a @ b):
            wrong.append(str(device))
    if wrong:
        return Check("matmul", FAIL, f"wrong results on {', '.join(wrong)}", "do not use this host: have it replaced")
    return Check("matmul", PASS, f"{SIDE} x {SIDE} in bfloat16 is exact on {len(jax.local_devices())} devices")


def exact(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal to the last bit."""
    return found.shape == expected.shape and bool((found == expected).all())


def contribution(device: int, devices: int, size: int, dtype: Any) -> np.ndarray:
    """What a device gives to the sum, different for each: in bfloat16 only its own elements, so that sums are exact.

    In float32 element j of device i is (i % 64 + 1) * (j % 5 + 1): all of them are added, and sums stay exact.
    """
    places = np.arange(size)
    if dtype == jnp.bfloat16:
        return np.where(places % devices == device, device % 256 + 1, 0).astype(dtype)
    return ((device % 64 + 1) * (places % 5 + 1)).astype(dtype)


def expected_sum(devices: int, size: int, dtype: Any) -> np.ndarray:
    """Of all contributions."""
    places = np.arange(size)
    if dtype == jnp.bfloat16:
        return (places % devices % 256 + 1).astype(dtype)
    return (sum(i % 64 + 1 for i in range(devices)) * (places % 5 + 1)).astype(dtype)


def all_reduce(sizes_mib: Sequence[float]) -> dict[str, Any]:
    """All-reduces over all devices, in both dtypes; every process takes part.

    Returns:
        {"wrong": what is not right on this process's devices, "rates": [[MiB a device, seconds], ...] of float32}.
    """
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("all",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("all"))
    add = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x[0], "all"), mesh=mesh, in_specs=PartitionSpec("all"), out_specs=PartitionSpec()
        )
    )

    def given(size: int, dtype: Any) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            device = (index[0].start or 0) if index else 0
            return contribution(device, len(devices), size, dtype)[None]

        return jax.make_array_from_callback((len(devices), size), split, part)

    wrong, rates = [], []
    for dtype in (jnp.bfloat16, jnp.float32):
        size = 8 * max(len(devices), 128)
        total = add(given(size, dtype))
        for shard in total.addressable_shards:
            if not exact(np.asarray(shard.data), expected_sum(len(devices), size, dtype)):
                wrong.append(f"{jnp.dtype(dtype).name} on {shard.device}")
    for mib in sizes_mib:
        x = given(max(1, int(mib * MIB / 4)), jnp.float32)
        jax.block_until_ready(add(x))
        seconds = []
        for _ in range(REPEATS):
            began = time.monotonic()
            jax.block_until_ready(add(x))
            seconds.append(time.monotonic() - began)
        rates.append([mib, min(seconds)])
    return {"wrong": wrong, "rates": rates}


def check_sums(of_processes: Sequence[dict[str, Any]], who: Sequence[str]) -> Check:
    """Whether all devices got the right sum, to the last bit."""
    for place, one in enumerate(of_processes):
        if one["wrong"]:
            remedy = "a link or a device is broken: have these hosts replaced"
            return Check("all-reduce sum", FAIL, f"{who[place]}: wrong in {', '.join(one['wrong'])}", remedy)
    return Check("all-reduce sum", PASS, f"bfloat16 and float32 are exact over {jax.device_count()} devices")


def check_bandwidth(of_processes: Sequence[dict[str, Any]], least_gb_s: float) -> Check:
    """Algorithm bandwidth: bytes that a device gives to the sum, over the seconds of the slowest process."""
    count = jax.device_count()
    if count == 1:
        return Check("all-reduce rate", PASS, "one device: nothing to send")
    rates = []
    for place, (mib, _) in enumerate(of_processes[0]["rates"]):
        seconds = max(one["rates"][place][1] for one in of_processes)
        rates.append((mib, mib * MIB / seconds / 1e9, seconds))
    shown = ", ".join(f"{mib:g} MiB {rate:.3g} GB/s ({seconds * 1e3:.3g} ms)" for mib, rate, seconds in rates)
    factor = 2 * (count - 1) / count
    found = f"{shown} a device, float32; links carry {factor:.2f} times that in a ring"
    if max(rate for _, rate, _ in rates) < least_gb_s:
        remedy = "look for a slow or wrongly configured network (NCCL_DEBUG=INFO; placement of the hosts)"
        return Check("all-reduce rate", FAIL, f"{found}; {least_gb_s:g} GB/s wanted", remedy)
    return Check("all-reduce rate", PASS, found)
