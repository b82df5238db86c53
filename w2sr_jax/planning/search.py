"""The order in which `--config.suggest` tries meshes, microbatches and remat policies.

A compilation takes minutes, so few can be made: shapes whose state alone is too large are never tried, and each answer
says whether a larger microbatch, or keeping activations, can fit on the same mesh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from w2sr_jax.model.config import ModelConfig

STATE_BYTES = 16  # a parameter: float32 master weight, two moments, gradient


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Shape:
    """One way to run the step."""

    tensor: int
    data: int
    fsdp: int
    rows: int  # of a microbatch, on each data group
    remat: str

    def flags(self, batch_size: int) -> str:
        """What makes `w2sr sft` run so."""
        mesh = f"--config.mesh.data={self.data} --config.mesh.fsdp={self.fsdp} --config.mesh.tensor={self.tensor}"
        accum = batch_size // (self.data * self.fsdp * self.rows)
        return f"{mesh} --config.train.grad_accum={accum} --config.train.remat={self.remat}"


def meshes(model: ModelConfig, num_params: int, devices: int, batch_size: int, available: int) -> list[Shape]:
    """Every mesh that splits model and batch evenly and on which the state fits, one row a group, likeliest first.

    Less of the tensor axis comes first (it communicates in every layer), then fewer replicas.
    """
    found = []
    for tensor in (t for t in range(1, devices + 1) if devices % t == 0):
        if model.num_heads % tensor or (tensor <= model.num_kv_heads and model.num_kv_heads % tensor):
            continue  # fewer kv heads than the axis has devices are whole on each
        groups = devices // tensor
        if batch_size % groups:
            continue
        for data in (d for d in range(1, groups + 1) if groups % d == 0):
            fsdp = groups // data
            divides = model.hidden_size % fsdp == 0 and model.vocab_size % tensor == 0
            divides &= model.intermediate_size % tensor == 0
            if divides and STATE_BYTES * num_params / (fsdp * tensor) < available:
                found.append(Shape(tensor, data, fsdp, 1, "full"))
    return sorted(found)


def explore(
    starts: list[Shape],
    model: ModelConfig,
    batch_size: int,
    length: int,
    budget: int,
    try_one: Callable[[Shape], dict[str, Any] | None],
) -> Iterator[tuple[Shape, dict[str, Any]]]:
    """Yields (shape, its plan) for at most `budget` shapes; those that `try_one` has no plan for are left out.

    The first round takes the meshes in order until one fits with a single row. That one is then grown: activations
    kept, if what a layer keeps at least could fit, and twice, four times ... the rows, as long as activations in
    proportion would fit. What is left of the budget goes to the other meshes.
    """
    left = budget
    for start in starts:
        if left == 0:
            return
        plan = try_one(start)
        left -= 1
        if plan is None:
            continue
        yield start, plan
        if not plan["fits"]:
            continue
        spare = plan["hbm_bytes_per_chip"] - plan["peak_bytes_per_chip"]
        grown = []
        if kept_bytes(model, length, start.tensor) < spare:
            grown.append(dataclasses.replace(start, remat="none"))
        rows = 2
        while batch_size % (start.data * start.fsdp * rows) == 0 and plan["memory"]["activations"] * (rows - 1) < spare:
            grown.append(dataclasses.replace(start, rows=rows))
            rows *= 2
        for shape in grown:
            if left == 0:
                return
            left -= 1
            if larger := try_one(shape):
                yield shape, larger


def kept_bytes(model: ModelConfig, length: int, tensor: int) -> int:
    """The least that a row keeps for the backward pass without remat, in bfloat16: projections, and half of T x T."""
    heads, kv, width = model.num_heads, model.num_kv_heads, model.head_dim
    values = 4 * model.hidden_size + ((heads + 2 * kv) * width + 3 * model.intermediate_size) // tensor
    return 2 * model.num_layers * (length * values + heads // tensor * length * length // 2)


def cheapest(tried: list[tuple[Shape, dict[str, Any]]]) -> tuple[Shape, dict[str, Any]] | None:
    """The fastest of those that fit (the slice is the same, so it is the cheapest); without times, the first."""
    fitting = [one for one in tried if one[1]["fits"]]
    return min(fitting, key=lambda one: one[1]["step_seconds_estimate"] or 0.0) if fitting else None
