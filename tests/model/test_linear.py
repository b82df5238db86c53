"""The matmul with weights: its values, and the gradients that one CPU device computes in an order of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.model.linear import linear, outer_sum


def arrays(*shapes, dtype=jnp.float32):
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(jax.random.split(jax.random.key(0), 9), shapes)]


@pytest.mark.parametrize("wide", [3, 7, 12])  # below, at and above the inputs' 7
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_device_has_the_gradients_of_a_mesh(wide, dtype):
    x, w, b, dy = arrays((2, 5, 7), (7, wide), (wide,), (2, 5, wide), dtype=dtype)
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=1), jax.devices()[:2])

    def gradients(mesh):
        out, pull = jax.vjp(lambda *args: linear(*args, mesh=mesh), x, w, b)
        return out, *pull(dy)

    for ours, plain in zip(gradients(None), gradients(mesh), strict=True):
        assert (ours.dtype, ours.shape) == (plain.dtype, plain.shape)
        np.testing.assert_allclose(
            np.float32(ours), np.float32(plain), rtol=1e-5 if dtype == jnp.float32 else 2e-2, atol=1e-5
        )


def test_weights_take_the_dtype_of_the_activations_and_their_gradient_their_own():
    x, w, dy = arrays((4, 8), (8, 2), (4, 2))
    out, pull = jax.vjp(linear, x.astype(jnp.bfloat16), w)
    dx, dw = pull(dy.astype(jnp.bfloat16))
    assert (out.dtype, dx.dtype, dw.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 256), (256, 64)])
def test_the_narrower_side_is_on_the_left_also_in_the_compiled_program(inputs, outputs):
    x, y = arrays((32, inputs), (32, outputs))
    program = jax.jit(outer_sum).lower(x, y).compile().as_text()
    products = [line for line in program.splitlines() if " dot(" in line]
    assert len(products) == 1
    assert "f32[64,256]" in products[0].split(" dot(")[0]
    np.testing.assert_allclose(outer_sum(x, y), x.T @ y, rtol=1e-4, atol=1e-4)
