"""FLOPs of the matmuls of a traced function, loops multiplied out and recomputation included.

Counted before the compiler sees the program, over all devices together. XLA's own count takes each loop body once.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend import core as jex


def traced_flops(jaxpr: Any, *, kernels_only: bool = False) -> float:
    """FLOPs of a jaxpr, a multiply-add being 2.

    A scan counts as often as it runs; a while loop, whose end only the data knows, once; of a cond's branches the
    costliest; a Pallas kernel by the estimate that it carries, or else by its grid.

    Args:
        kernels_only: leaves out everything but Pallas kernels.
    """
    inner = jaxpr.jaxpr if isinstance(jaxpr, jex.ClosedJaxpr) else jaxpr
    return sum(_equation_flops(equation, kernels_only) for equation in inner.eqns)


def _equation_flops(equation: Any, kernels_only: bool) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return 0.0 if kernels_only else _dot_flops(equation)
    if name == "pallas_call":
        if params.get("cost_estimate") is not None:
            return float(params["cost_estimate"].flops)
        grid = [int(n) for n in params["grid_mapping"].grid]
        return math.prod(grid) * traced_flops(params["jaxpr"]) * _unmasked(params, grid)
    if name == "cond":
        return max((traced_flops(branch, kernels_only=kernels_only) for branch in params["branches"]), default=0.0)
    within = sum(traced_flops(inner, kernels_only=kernels_only) for inner in jex.jaxprs_in_params(params))
    if name == "scan":
        return params["length"] * within
    if name == "shard_map":
        return math.prod(params["mesh"].shape.values()) * within
    return within


def _unmasked(params: Any, grid: list[int]) -> float:
    """The share of a causal kernel's blocks that hold something to see: Splash skips the others."""
    if "splash" not in str(params.get("name", "") or params.get("name_and_src_info", "")):
        return 1.0
    blocks = grid[-1]  # of queries or of keys: they are of one size
    return (blocks + 1) / (2 * blocks)


def _dot_flops(equation: Any) -> float:
    (contracting, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left.shape[axis] for axis in contracting)
