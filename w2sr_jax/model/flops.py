"""What core/cost.py needs to know of a model to count its FLOPs."""

from __future__ import annotations

import math
from typing import TypedDict

from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.params import param_specs


class FlopsShape(TypedDict):
    """Keyword arguments of cost.train_flops, prefill_flops and decode_flops."""

    num_params: int
    num_layers: int
    num_heads: int
    head_dim: int


def flops_shape(config: ModelConfig) -> FlopsShape:
    """Sizes of the matmuls: all parameters, less an input embedding that is not also the head."""
    outer, layer = param_specs(config)
    total = sum(math.prod(spec.shape) for spec in (*outer.values(), *layer.values()))
    if not config.tie_embeddings:
        total -= math.prod(outer["embed"].shape)
    return {
        "num_params": total,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "head_dim": config.head_dim,
    }
