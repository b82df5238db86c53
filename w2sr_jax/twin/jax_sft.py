"""Our side of the training comparison: the very step of `w2sr sft`, fed with batches from disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from w2sr_jax.core.config import MeshConfig, OptimizerConfig
from w2sr_jax.core.cost import CompileTimer
from w2sr_jax.core.mesh import mesh_or_none
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.data.pack import Batch
from w2sr_jax.learn.optim import learning_rate, make_optimizer
from w2sr_jax.learn.state import init_state, shard_batch
from w2sr_jax.learn.step import make_sft_step
from w2sr_jax.model import hf
from w2sr_jax.twin.dump import read_batch


class JaxSFT:
    """Trains one step at a time.

    Args:
        request: model (a directory), batches (a directory), optimizer, train and mesh (configs as dicts), total (the
            steps that the schedule is made for).
    """

    def __init__(self, request: dict[str, Any]):
        self._compile = CompileTimer()
        jax.monitoring.register_event_duration_secs_listener(self._compile.add)
        self.optimizer, train = OptimizerConfig(**request["optimizer"]), TrainConfig(**request["train"])
        self.mesh, self.total = mesh_or_none(MeshConfig(**request["mesh"])), request["total"]
        self.batches = Path(request["batches"])
        model = hf.load(
            request["model"], self.mesh, compute_dtype=train.dtype, scan_layers=train.scan_layers, remat=train.remat
        )
        graphdef, params = nnx.split(model)
        self.state = init_state(params, make_optimizer(self.optimizer), self.mesh)
        self.run = make_sft_step(graphdef, self.optimizer, train, self.mesh)

    def step(self, number: int) -> tuple[float, float, float]:
        """(loss, gradient norm, seconds) of update `number`; the clock runs until the new weights are there."""
        arrays = read_batch(self.batches, number)
        rate = learning_rate(self.optimizer, min(number, self.total - 1), self.total)
        began = time.perf_counter()
        batch: Any = Batch(**arrays)
        if self.mesh is not None:
            batch = shard_batch(batch, self.mesh)
        self.state, metrics = self.run(self.state, batch, rate)
        jax.block_until_ready(self.state)
        seconds = time.perf_counter() - began
        return float(metrics["loss"]), float(metrics["grad_norm"]), seconds

    def describe(self) -> dict[str, Any]:
        """What ran, and how long JAX traced and compiled until now."""
        return describe() | {"compile_seconds": self._compile.seconds}


def describe() -> dict[str, Any]:
    """Versions, devices, and the allocator's peak where the device has one of its own."""
    devices = jax.local_devices()
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    return {
        "versions": {"jax": jax.__version__},
        "device": devices[0].device_kind,
        "devices": 1 if devices[0].platform == "cpu" else len(devices),
        "device_peak_bytes": max(peaks) if peaks else None,
    }
