"""Adam whose two moments are stored in bfloat16: 4 bytes a parameter instead of 8.

The second moment is rounded at random, up or down with the odds that keep its mean. Rounded to nearest it would stick:
with b2 = 0.999 one step changes it by 0.1 %, and neighbouring bfloat16 numbers are 0.4 to 0.8 % apart. The first moment
changes by a tenth in a step and is rounded to nearest. Arithmetic is float32.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_adam_bfloat16(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """As `optax.scale_by_adam`, of arXiv 1412.6980, with moments in bfloat16.

    What is drawn depends on the step and on the parameter's place in the tree alone, so that a run repeats itself on
    any mesh and after a restore.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.bfloat16), params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        count = optax.safe_increment(state.count)
        step_key = jax.random.fold_in(jax.random.key(0), count)
        leaves, structure = jax.tree.flatten(grads)
        moved = []
        for place, (g, m, v) in enumerate(zip(leaves, jax.tree.leaves(state.mu), jax.tree.leaves(state.nu))):
            m = b1 * m.astype(jnp.float32) + (1 - b1) * g
            v = b2 * v.astype(jnp.float32) + (1 - b2) * jnp.square(g)
            direction = (m / (1 - b1**count)) / (jnp.sqrt(v / (1 - b2**count)) + eps)
            moved.append((direction, m.astype(jnp.bfloat16), stochastic_round(v, jax.random.fold_in(step_key, place))))
        directions, mu, nu = (jax.tree.unflatten(structure, part) for part in zip(*moved))
        return directions, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def stochastic_round(x: jax.Array, key: jax.Array) -> jax.Array:
    """Float32 to one of its two neighbours in bfloat16, whose mean over keys is `x`."""
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32) + noise
    return jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
