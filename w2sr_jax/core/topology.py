"""Accelerator slices by name ("v6e:4x4", "cpu:8"): how many chips, and what one chip holds and does.

Sources. Peaks, HBM and interconnect: each chip's page in Google's documentation (docs.cloud.google.com/tpu/docs/v5e,
v5p, v6e; read in November 2026). The HBM that a program may use is less than what is sold: it is what libtpu 0.0.50.1
names as available when a program does not fit. Clocks: under them XLA's cycles came within a tenth of the one published
step time that they were held against (BUILD_NOTES.md).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from w2sr_jax.core.errors import UsageError

GIB = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One accelerator chip; rates are peaks."""

    name: str
    device_kinds: tuple[str, ...]  # as JAX names them
    hbm_bytes: int  # that a program may use
    flops_per_s: float  # bfloat16
    hbm_bytes_per_s: float
    ici_bytes_per_s: float  # all links of a chip, both directions together
    clock_hz: float  # of the cycles in XLA's schedules
    dimensions: int  # of a slice's shape


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v5e",
            device_kinds=("TPU v5 lite", "TPU v5e"),
            hbm_bytes=int(15.75 * GIB),
            flops_per_s=197e12,
            hbm_bytes_per_s=819e9,
            ici_bytes_per_s=400e9,
            clock_hz=1.5e9,
            dimensions=2,
        ),
        Chip(
            name="v5p",
            device_kinds=("TPU v5", "TPU v5p"),
            hbm_bytes=int(95.73 * GIB),
            flops_per_s=459e12,
            hbm_bytes_per_s=2765e9,
            ici_bytes_per_s=600e9,  # given as 4,800 Gbit/s
            clock_hz=1.75e9,
            dimensions=3,
        ),
        Chip(
            name="v6e",
            device_kinds=("TPU v6 lite", "TPU v6e"),
            hbm_bytes=int(31.24 * GIB),
            flops_per_s=918e12,
            hbm_bytes_per_s=1638e9,
            ici_bytes_per_s=800e9,
            clock_hz=1.75e9,
            dimensions=2,
        ),
    )
}

# Dense bfloat16 peaks and memory of GPUs, which no topology name stands for (NVIDIA's data sheets of the SXM boards).
GPU_FLOPS_PER_S = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}
GPU_BYTES_PER_S = {"NVIDIA H100 80GB HBM3": 3350e9, "NVIDIA H200": 4800e9}


@dataclasses.dataclass(frozen=True, slots=True)
class Topology:
    """A slice of chips; without a chip it is so many devices of a CPU."""

    name: str
    chip: Chip | None
    devices: int


def parse_topology(name: str) -> Topology:
    """The slice that a name like "v5e:4x4", "v5p:2x2x1", "v6e:8x8" or "cpu:64" stands for.

    Raises:
        UsageError: it is none.
    """
    kind, _, size = name.partition(":")
    if kind == "cpu" and re.fullmatch(r"[1-9]\d{0,4}", size):
        return Topology(name, None, int(size))
    chip = CHIPS.get(kind)
    if (
        chip is None
        or not re.fullmatch(r"[1-9]\d{0,2}(x[1-9]\d{0,2})+", size)
        or size.count("x") != chip.dimensions - 1
    ):
        forms = ", ".join(f"{c.name}:{'x'.join('ABC'[: c.dimensions])}" for c in CHIPS.values())
        raise UsageError(f"config.topology: {name!r} is none; expected {forms} or cpu:N")
    return Topology(name, chip, math.prod(map(int, size.split("x"))))


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`, None for what is not in the table."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.device_kinds), None)


def peak_flops_per_s(device_kind: str) -> float | None:
    """The bfloat16 peak of one device that JAX calls `device_kind`, None where none is known."""
    chip = chip_of(device_kind)
    return chip.flops_per_s if chip else GPU_FLOPS_PER_S.get(device_kind)


def memory_bytes_per_s(device_kind: str) -> float | None:
    """The memory bandwidth of one device that JAX calls `device_kind`, None where none is known."""
    chip = chip_of(device_kind)
    return chip.hbm_bytes_per_s if chip else GPU_BYTES_PER_S.get(device_kind)


def compile_environment(topology: Topology, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that compiles for the slice on a machine without an accelerator.

    libtpu takes the place of a TPU machine's metadata from variables, and several processes may load it at once. Flags
    of the caller (XLA_FLAGS, LIBTPU_INIT_ARGS) are left out, so that the same plan comes out everywhere.
    """
    found = {k: v for k, v in environment.items() if k not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_NUM_CPU_DEVICES")}
    found |= {"JAX_PLATFORMS": "cpu"}
    if topology.chip is None:
        return found | {"JAX_NUM_CPU_DEVICES": str(topology.devices)}
    return found | {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any will do: the topology asked for is what counts
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
