"""Which form of attention a platform gets: Splash on TPU, flash on GPU, the dense blocks of model/attention.py else."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from absl import logging
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from w2sr_jax.core.mesh import on_one_cpu
from w2sr_jax.model import attention as blocks
from w2sr_jax.model.kernels.layout import refusal
from w2sr_jax.model.remat import ATTENTION

AUTO = {"tpu": "splash", "gpu": "flash"}  # platform -> form; every other one has "dense"


def pick(form: str, q_shape: tuple[int, ...], kv_heads: int, mesh: Mesh | None) -> str:
    """The form that queries [B, T, N, H] get: "dense", "splash" or "flash".

    Args:
        form: "auto", or one of the three. Where a kernel cannot take the shape, the dense form is used, and a log line
            says so.
        mesh: whose devices run it; None is the default device.
    """
    form = AUTO.get(_platform(mesh), "dense") if form == "auto" else form
    if form != "dense" and (why := refusal(q_shape, kv_heads, mesh)):
        _say(form, why)
        form = "dense"
    return form


def query_scale(form: str, width: int) -> float:
    """What queries of H = `width` are to be multiplied with before they are rounded to bfloat16.

    Splash does not scale scores; H^-0.5 that comes after the rotation would round them twice.
    """
    return width**-0.5 if form == "splash" else 1.0


def attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    form: str = "auto",
    q_scaled: bool = False,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Softmax attention as of `model.attention.attention`, by the form that the platform has a kernel for.

    Args:
        form: as of `pick`; a kernel on a platform that is not its own is interpreted, which is for tests.
        q_scaled: queries have been multiplied with `query_scale` of the form that `pick` returned.
        mesh: whose devices run it, and how rows and heads are split; None is the default device.
    """
    form = pick(form, q_BTNH.shape, k_BTKH.shape[2], mesh)
    if form == "dense":
        in_parts = on_one_cpu(mesh)
        out_BTNH = blocks.attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT=segment_ids_BT, in_parts=in_parts)
        return checkpoint_name(out_BTNH, ATTENTION)
    interpret = AUTO.get(_platform(mesh)) != form
    if form == "splash":
        from w2sr_jax.model.kernels.splash import splash_attention

        if not q_scaled:
            q_BTNH = (q_BTNH.astype(jnp.float32) * query_scale(form, q_BTNH.shape[-1])).astype(q_BTNH.dtype)
        return splash_attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, mesh, interpret=interpret)
    from w2sr_jax.model.kernels.flash import flash_attention

    return flash_attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, mesh, interpret=interpret)


def _platform(mesh: Mesh | None) -> str:
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


@functools.cache
def _say(form: str, why: str) -> None:
    logging.warning("dense attention instead of %s: %s", form, why)
