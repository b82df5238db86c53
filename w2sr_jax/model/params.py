"""What a decoder holds: shapes, axis names and initial values in one table; loading, sharding and restoring follow it.

Shapes: D model, N query heads times their width, K that of kv heads, F ffn, V vocab, L layers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from w2sr_jax.core.mesh import LogicalAxis
from w2sr_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True, slots=True)
class ParamSpec:
    """Shape, logical axis names (core/mesh.py maps them to mesh axes) and initial value of one parameter."""

    shape: tuple[int, ...]
    axes: tuple[LogicalAxis, ...]
    std: float | None  # of a normal; None: the constant
    constant: float = 0.0


def param_specs(config: ModelConfig) -> tuple[dict[str, ParamSpec], dict[str, ParamSpec]]:
    """(outer parameters, layer parameters): the one list of what a decoder holds.

    Matrices start as normal(0.02); those that write into the residual stream as 0.02 / sqrt(2L), so that its variance
    does not grow with depth (GPT-2). Biases start at 0, norms at 1.
    """
    L, D, F, V = config.num_layers, config.hidden_size, config.intermediate_size, config.vocab_size
    N, K = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    std, residual = 0.02, 0.02 / (2 * L) ** 0.5
    heads, kv_heads = ("heads", config.num_heads), ("kv_heads", config.num_kv_heads)  # no device holds half a head
    outer = {"embed": ParamSpec((V, D), ("vocab", "embed"), std), "norm": ParamSpec((D,), ("norm",), None, 1.0)}
    if not config.tie_embeddings:
        outer["lm_head"] = ParamSpec((D, V), ("embed", "vocab"), std)
    layer = {
        "input_norm": ParamSpec((L, D), ("layers", "norm"), None, 1.0),
        "q": ParamSpec((L, D, N), ("layers", "embed", heads), std),
        "k": ParamSpec((L, D, K), ("layers", "embed", kv_heads), std),
        "v": ParamSpec((L, D, K), ("layers", "embed", kv_heads), std),
        "o": ParamSpec((L, N, D), ("layers", heads, "embed"), residual),
        "post_norm": ParamSpec((L, D), ("layers", "norm"), None, 1.0),
        "gate": ParamSpec((L, D, F), ("layers", "embed", "mlp"), std),
        "up": ParamSpec((L, D, F), ("layers", "embed", "mlp"), std),
        "down": ParamSpec((L, F, D), ("layers", "mlp", "embed"), residual),
    }
    if config.attention_bias:
        layer["q_bias"] = ParamSpec((L, N), ("layers", heads), None)
        layer["k_bias"] = ParamSpec((L, K), ("layers", kv_heads), None)
        layer["v_bias"] = ParamSpec((L, K), ("layers", kv_heads), None)
    return outer, layer


def abstract_params(config: ModelConfig, param_dtype: Any = jnp.float32) -> nnx.State:
    """The parameters as shapes and dtypes with their `logical_axes`; nothing is allocated."""
    outer, layer = param_specs(config)

    def shape(spec: ParamSpec) -> nnx.Param:
        return nnx.Param(jax.ShapeDtypeStruct(spec.shape, jnp.dtype(param_dtype)), logical_axes=spec.axes)

    tree = {name: shape(spec) for name, spec in outer.items()}
    return nnx.State(tree | {"layers": {name: shape(spec) for name, spec in layer.items()}})


def is_norm(param: nnx.Variable[Any]) -> bool:
    """Whether these are a norm's weights, which are computed with in float32, whatever the dtype of the activations."""
    return "norm" in param.get_metadata("logical_axes")
