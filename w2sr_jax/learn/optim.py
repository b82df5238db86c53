"""AdamW without its learning rate, and the schedule that the host computes.

The rate is an argument of the jitted step: runs that differ in it, or in its schedule, share one compilation.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import optax
from flax import nnx

from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.learn.small_moments import scale_by_adam_bfloat16


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Rate of update `step` (0 is the first of `total_steps`): a linear warm-up, then the schedule.

    The warm-up takes warmup_ratio of all updates and ends at the peak; no update has rate 0. The schedule would reach
    final_fraction of the peak one update after the last, as transformers' and optax's do.
    """
    warmup = round(config.warmup_ratio * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    shape = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[config.schedule]
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * shape)


class OnHost(optax.GradientTransformation):
    """An optimizer whose state waits in the host's memory between updates; learn/state.py and learn/step.py move it."""


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, Adam and decoupled weight decay; the update is to be multiplied by -learning rate."""
    adam = {"float32": optax.scale_by_adam, "bfloat16": scale_by_adam_bfloat16}[config.moments]
    parts = [adam(config.b1, config.b2, config.eps)]
    if config.clip_norm > 0:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay > 0:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
    optimizer = optax.chain(*parts)
    return OnHost(optimizer.init, optimizer.update) if config.offload else optimizer


def decay_mask(params: Any) -> Any:
    """True for matrices. Stacked layers make biases and norms two-dimensional, so the logical axes decide, not ndim."""

    def is_matrix(param: nnx.Variable[Any]) -> bool:
        return len([axis for axis in param.get_metadata("logical_axes") if axis != "layers"]) > 1

    return jax.tree.map(is_matrix, params, is_leaf=lambda x: isinstance(x, nnx.Variable))
