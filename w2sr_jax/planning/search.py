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
KEEPING = ("none", "matmuls", "projections", "attention", "full")  # remat policies, from the one that keeps most
MARGIN = 0.05  # of the memory: what the compiler does not count takes some, too


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

    The first round takes the meshes in order until one fits with a single row and remat of whole layers. That one is
    then grown to one, two, four ... rows, as long as activations in proportion would fit, each with the policy that
    keeps most of what could fit (`kept_bytes`). What is left of the budget goes to the other meshes, and where none
    fits, to the host's memory.
    """
    left, fitted = budget, False
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
        fitted = True
        for shape in _grown(start, plan, model, batch_size, length):
            if left == 0:
                return
            left -= 1
            if larger := try_one(shape):
                yield shape, larger
    if left and not fitted and starts:
        last = dataclasses.replace(starts[0], remat="offload")
        if plan := try_one(last):
            yield last, plan


def _grown(start: Shape, plan: dict[str, Any], model: ModelConfig, batch_size: int, length: int) -> list[Shape]:
    """Larger ways to run a shape that fits, as far as they may fit, too."""
    spare, activations = plan["hbm_bytes_per_chip"] - plan["peak_bytes_per_chip"], plan["memory"]["activations"]
    found, rows = [], 1
    while batch_size % (start.data * start.fsdp * rows) == 0 and activations * (rows - 1) < spare:
        left = spare - activations * (rows - 1)
        policy = next(p for p in KEEPING if rows * kept_bytes(model, length, start.tensor, p) < left)
        found.append(dataclasses.replace(start, rows=rows, remat=policy))
        rows *= 2
    return [shape for shape in found if shape != start]


def kept_bytes(model: ModelConfig, length: int, tensor: int, remat: str) -> int:
    """The least that a row keeps for the backward pass beside each layer's input, in bfloat16 (model/remat.py)."""
    width = model.hidden_size
    heads, kv_heads = (model.head_dim * count // tensor for count in (model.num_heads, model.num_kv_heads))
    mlp = model.intermediate_size // tensor
    values = {
        "none": 4 * width + 2 * heads + 2 * kv_heads + 3 * mlp,
        "matmuls": width + 2 * heads + 2 * kv_heads + 2 * mlp,
        "projections": width + 2 * heads + 2 * kv_heads,
        "attention": heads,
        "full": 0,
    }[remat]
    return 2 * model.num_layers * length * values


def cheapest(tried: list[tuple[Shape, dict[str, Any]]]) -> tuple[Shape, dict[str, Any]] | None:
    """The fastest of those that fit (the slice is the same, so it is the cheapest); without times, the first.

    Those that leave MARGIN free come before those that do not.
    """
    fitting = [one for one in tried if one[1]["fits"]]
    roomy = [one for one in fitting if one[1]["peak_bytes_per_chip"] <= (1 - MARGIN) * one[1]["hbm_bytes_per_chip"]]
    fitting = roomy or fitting
    return min(fitting, key=lambda one: one[1]["step_seconds_estimate"] or 0.0) if fitting else None
