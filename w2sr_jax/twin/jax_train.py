"""Our side of the training comparison: the very steps of `w2sr sft` and `w2sr grpo`, fed with arrays from disk."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from w2sr_jax.core.config import MeshConfig, OptimizerConfig
from w2sr_jax.core.cost import CompileTimer
from w2sr_jax.core.mesh import mesh_or_none
from w2sr_jax.core.stage_config import GRPOLossConfig, TrainConfig
from w2sr_jax.data.pack import Batch
from w2sr_jax.learn.optim import learning_rate, make_optimizer
from w2sr_jax.learn.pace import settled
from w2sr_jax.learn.state import frozen, init_state, shard_batch
from w2sr_jax.learn.step import RolloutBatch, make_grpo_step, make_logprob_fn, make_sft_step
from w2sr_jax.model import hf
from w2sr_jax.twin.dump import groups, read_arrays, read_batch, without_old_logprobs, write_arrays


class JaxSFT:
    """One update of `w2sr sft` at a time.

    Args:
        request: model (a directory), batches (a directory), data, optimizer, train and mesh (configs as dicts), total
            (the updates that the schedule is made for).
    """

    def __init__(self, request: dict[str, Any]):
        set_precision(request["train"]["dtype"])
        self._compile = CompileTimer()
        jax.monitoring.register_event_duration_secs_listener(self._compile.add)
        self.optimizer, self.train = OptimizerConfig(**request["optimizer"]), TrainConfig(**request["train"])
        self.mesh, self.total = mesh_or_none(MeshConfig(**request["mesh"])), request["total"]
        self.batches, train = Path(request["batches"]), self.train
        model = hf.load(
            request["model"],
            self.mesh,
            compute_dtype=train.dtype,
            scan_layers=train.scan_layers,
            remat=train.remat,
            attention=train.attention,
        )
        self.graphdef, params = nnx.split(model)
        self.prepare(request, params)
        self.state = init_state(params, make_optimizer(self.optimizer), self.mesh)

    def prepare(self, request: dict[str, Any], params: Any) -> None:
        """Makes the jitted functions, before the first update takes `params` over."""
        most = 1
        if request["data"]["packing"]:
            most += max(int(read_arrays(group)["segment_ids_BT"].max()) for group in groups(self.batches))
        self.run = make_sft_step(self.graphdef, self.optimizer, self.train, self.mesh, most)

    def step(self, number: int) -> tuple[float, float, float]:
        """(loss, gradient norm, seconds) of update `number`; the clock runs until the new weights are there."""
        arrays = read_batch(self.batches, number)
        rate = learning_rate(self.optimizer, min(number, self.total - 1), self.total)
        began = time.perf_counter()
        self.state, metrics = settled(self.run(self.state, self.batch(arrays), rate))
        jax.block_until_ready(self.state)
        seconds = time.perf_counter() - began
        return float(metrics["loss"]), float(metrics["grad_norm"]), seconds

    def batch(self, arrays: dict[str, np.ndarray]) -> Any:
        """What the step takes."""
        return self.place(Batch(**arrays))

    def place(self, batch: Any) -> Any:
        return batch if self.mesh is None else shard_batch(batch, self.mesh)

    def describe(self) -> dict[str, Any]:
        """What ran, and how long JAX traced and compiled until now."""
        return describe(1 if self.mesh is None else self.mesh.size) | {"compile_seconds": self._compile.seconds}


class JaxGRPO(JaxSFT):
    """One update of `w2sr grpo` at a time, on rollouts from disk: reference logprobs of a minibatch, then its update.

    Args:
        request: as for `JaxSFT`, and loss (a config as dict).
    """

    def prepare(self, request: dict[str, Any], params: Any) -> None:
        self.run = make_grpo_step(
            self.graphdef, self.optimizer, GRPOLossConfig(**request["loss"]), self.train, self.mesh
        )
        self.logprobs = make_logprob_fn(self.graphdef, self.train, self.mesh)
        self.reference = frozen(params, self.train.dtype)

    def batch(self, arrays: dict[str, np.ndarray]) -> Any:
        one = self.place(rollout(arrays))
        return dataclasses.replace(one, ref_logprobs_BT=settled(self.logprobs(self.reference, one)))


class OldLogprobs(JaxSFT):
    """Gives rollouts on disk that have no old logprobs those of the weights as they are at the start, for all sides.

    In a process before those that are measured, which then start and compile alike, be the rollouts new or not.
    """

    def prepare(self, request: dict[str, Any], params: Any) -> None:
        logprobs = make_logprob_fn(self.graphdef, self.train, self.mesh)
        for group in without_old_logprobs(self.batches):
            arrays = read_arrays(group)
            old = np.asarray(logprobs(params, self.place(rollout(arrays))))
            write_arrays(group, arrays | {"old_logprobs_BT": old})


def rollout(arrays: dict[str, np.ndarray]) -> RolloutBatch:
    """A rollout from disk; what is not there yet is zeros, and the sampler is taken to agree with the policy."""
    zeros = np.zeros_like(arrays["loss_mask_BT"])
    old = arrays.get("old_logprobs_BT", zeros)
    return RolloutBatch(**(arrays | {"old_logprobs_BT": old, "ref_logprobs_BT": zeros, "sampler_logprobs_BT": old}))


def set_precision(dtype: str) -> None:
    """float32 means float32 on an accelerator, too, where JAX multiplies it in TF32 or bfloat16 unless told.

    `torch_model.set_up` has the same rule for PyTorch. What stays float32 in a bfloat16 model has JAX's default.
    """
    if dtype == "float32" and jax.default_backend() != "cpu":
        jax.config.update("jax_default_matmul_precision", "highest")


def describe(used: int = 1) -> dict[str, Any]:
    """Versions, devices, and the allocator's peak where the device has one of its own.

    Args:
        used: devices that the work is on; of a CPU all are one.
    """
    devices = jax.local_devices()
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    return {
        "versions": {"jax": jax.__version__},
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": 1 if devices[0].platform == "cpu" else used,
        "device_peak_bytes": max(peaks) if peaks else None,
    }
