"""What the backward pass finds in memory, and what it computes again: remat policies by name.

A policy keeps values by the names that `kept` gives them. What a layer gets is always kept, 2 D bytes a token and layer
in bfloat16. "attention" adds 2 N H and a float32 number a head, "projections" 2 (N + 2 K) H + 2 D to that, "matmuls"
4 F to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

INPUT, QKV, ATTENTION, OUT, MLP = "layer_input", "qkv", "attention", "out", "mlp"

POLICIES = {
    "none": "all of it is kept",
    "matmuls": "projections and the two halves of the MLP are kept: what is left to compute again is cheap",
    "projections": "q, k, v, attention and what it adds are kept: all but the MLP",
    "attention": "attention's output is kept; Splash then runs no second forward kernel",
    "full": "each layer's input is kept",
    "offload": "each layer's input, q, k, v and what attention adds are kept in the host's memory",
}


def kept(x: Any, name: str) -> Any:
    """`x`, under a name that policies know."""
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, name), x)


def with_policy(body: Callable[..., Any], remat: str, *, scanned: bool) -> Callable[..., Any]:
    """`body`, a layer, under the policy of that name.

    Args:
        scanned: it is the body of a scan, whose loop keeps XLA from merging what is computed twice.
    """
    if remat == "none":
        return body
    policies = jax.checkpoint_policies
    policy = {
        "full": policies.nothing_saveable,
        "attention": policies.save_only_these_names(ATTENTION),
        "matmuls": policies.save_only_these_names(ATTENTION, QKV, OUT, MLP),
        "projections": policies.save_only_these_names(ATTENTION, QKV, OUT),
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[INPUT, QKV, OUT],
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }[remat]
    return jax.checkpoint(body, policy=policy, prevent_cse=not scanned)
