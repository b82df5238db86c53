"""Which form of attention a platform gets: Splash on TPU, cuDNN or flash on GPU, model/attention.py's blocks else."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from w2sr_jax.core.mesh import on_one_cpu, platform
from w2sr_jax.model import attention as blocks
from w2sr_jax.model.kernels.layout import on_hopper, refusal
from w2sr_jax.model.remat import ATTENTION

PLATFORMS = {"splash": "tpu", "flash": "gpu", "cudnn": "gpu"}  # form -> where it is at home


def pick(
    form: str,
    q_shape: tuple[int, ...],
    kv_heads: int,
    mesh: Mesh | None,
    dtype: Any = jnp.float32,
    row_examples: int = 0,
) -> str:
    """The form that queries [B, T, N, H] get: "dense", "splash", "flash" or "cudnn".

    Args:
        form: "auto", or one of the four. Where a kernel cannot take the shape, the dense form is used, and a log line
            says so.
        mesh: whose devices run it; None is the default device.
        dtype: of the queries.
        row_examples: as of `attention`.
    """
    no_cudnn = _no_cudnn(mesh, dtype, row_examples)
    if form == "auto":
        form = {"tpu": "splash", "gpu": "flash" if no_cudnn else "cudnn"}.get(platform(mesh), "dense")
    if form != "dense" and (why := refusal(q_shape, kv_heads, mesh) or (no_cudnn if form == "cudnn" else "")):
        _say(form, why)
        form = "dense"
    return form


def query_scale(form: str, width: int) -> float:
    """What queries of H = `width` are to be multiplied with before they are rounded to bfloat16.

    Neither Splash nor blocks scale scores; H^-0.5 that comes after the rotation would round them twice.
    """
    return width**-0.5 if form in ("splash", "dense") else 1.0


def attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    form: str = "auto",
    q_scaled: bool = False,
    mesh: Mesh | None = None,
    row_examples: int = 0,
) -> jax.Array:
    """Softmax attention as of `model.attention.attention`, by the form that the platform has a kernel for.

    Args:
        form: as of `pick`; a kernel on a platform that is not its own is interpreted, which is for tests.
        q_scaled: queries have been multiplied with `query_scale` of the form that `pick` returned.
        mesh: whose devices run it, and how rows and heads are split; None is the default device.
        row_examples: the most that a row has, padding counted as one; 0 is not known, and segments of None mean 1.
    """
    row_examples = 1 if segment_ids_BT is None else row_examples
    form = pick(form, q_BTNH.shape, k_BTKH.shape[2], mesh, q_BTNH.dtype, row_examples)
    if form == "dense":
        in_parts = on_one_cpu(mesh)
        out_BTNH = blocks.attention(
            q_BTNH, k_BTKH, v_BTKH, segment_ids_BT=segment_ids_BT, q_scaled=q_scaled, in_parts=in_parts
        )
        return checkpoint_name(out_BTNH, ATTENTION)
    if form == "cudnn":
        from w2sr_jax.model.kernels.cudnn import cudnn_attention

        return cudnn_attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, mesh, row_examples=row_examples)
    interpret = platform(mesh) != PLATFORMS[form]
    if form == "splash":
        from w2sr_jax.model.kernels.splash import splash_attention

        if not q_scaled:
            q_BTNH = (q_BTNH.astype(jnp.float32) * query_scale(form, q_BTNH.shape[-1])).astype(q_BTNH.dtype)
        return splash_attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, mesh, interpret=interpret)
    from w2sr_jax.model.kernels.flash import flash_attention

    return flash_attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, mesh, interpret=interpret)


def row_examples_bound(row_examples: int, mesh: Mesh | None) -> int:
    """The bound on a row's examples that a program is compiled for: few different ones, and none where none is used."""
    if row_examples <= 1:
        return row_examples
    return row_examples + row_examples % 2 if platform(mesh) == "gpu" else 0


def _no_cudnn(mesh: Mesh | None, dtype: Any, row_examples: int) -> str:
    """Why cuDNN cannot be taken; empty if it can."""
    if not on_hopper(mesh):
        return "the devices are no GPUs of NVIDIA's Hopper generation or later"
    if jnp.dtype(dtype).itemsize != 2:
        return f"cuDNN knows no {jnp.dtype(dtype).name}"
    return "" if row_examples else "how many examples a row has is not bounded"


@functools.cache
def _say(form: str, why: str) -> None:
    logging.warning("dense attention instead of %s: %s", form, why)
