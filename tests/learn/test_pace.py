"""When a training loop sends its next step; its order with fetching is in tests/stages/test_watch.py."""

import jax
import jax.numpy as jnp

from w2sr_jax.learn.pace import settled


def test_a_settled_step_is_over():
    @jax.jit
    def long_step(x):
        return {"y": jax.lax.fori_loop(0, 200, lambda _, y: jnp.sin(x @ y), x)}

    x = jnp.eye(500)
    jax.block_until_ready(long_step(x))
    assert not long_step(x)["y"].is_ready()  # or nothing is shown here
    assert settled(long_step(x))["y"].is_ready()
