"""Matmuls with weights, whose gradients one CPU device computes in the order that its library is fast at.

Shape letters: R rows (tokens of all sequences), D inputs, F outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from w2sr_jax.core.mesh import on_one_cpu


def linear(
    x: jax.Array, weight_DF: jax.Array, bias_F: jax.Array | None = None, *, mesh: Mesh | None = None
) -> jax.Array:
    """x @ weight (+ bias) in the dtype of `x`, which is [..., D].

    As a 2-dimensional matmul: XLA's CPU backend runs the gradient of a 3-dimensional one at half the speed.
    """
    x_RD, weight_DF = x.reshape(-1, x.shape[-1]), weight_DF.astype(x.dtype)
    out_RF = _matmul_on_cpu(x_RD, weight_DF) if on_one_cpu(mesh) else x_RD @ weight_DF
    if bias_F is not None:
        out_RF = out_RF + bias_F.astype(x.dtype)
    return out_RF.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _matmul_on_cpu(x_RD: jax.Array, weight_DF: jax.Array) -> jax.Array:
    return x_RD @ weight_DF


def _forward(x_RD: jax.Array, weight_DF: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x_RD @ weight_DF, (x_RD, weight_DF)


def _backward(saved: tuple[jax.Array, jax.Array], dout_RF: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_RD, weight_DF = saved
    return dout_RF @ weight_DF.T, outer_sum(x_RD, dout_RF)


_matmul_on_cpu.defvjp(_forward, _backward)


def outer_sum(x_RD: jax.Array, y_RF: jax.Array) -> jax.Array:
    """x^T y, [D, F], on one CPU device: with the narrower of the two on the left.

    With the wider one there, XLA's matmul takes half as long again at 1,024 by 256. It would put it there by itself, to
    save the transposition; the barrier is against that.
    """
    if x_RD.shape[1] <= y_RF.shape[1]:
        return jax.lax.optimization_barrier(jnp.einsum("rd,rf->df", x_RD, y_RF))
    return jax.lax.optimization_barrier(jnp.einsum("rf,rd->fd", y_RF, x_RD)).T
