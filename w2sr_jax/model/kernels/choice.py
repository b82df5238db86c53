"""Which form of attention a platform gets: Splash on TPU, flash on GPU, the dense blocks of model/attention.py else."""

from __future__ import annotations

import functools

import jax
from absl import logging
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from w2sr_jax.model import attention as blocks
from w2sr_jax.model.kernels.layout import refusal
from w2sr_jax.model.remat import ATTENTION

AUTO = {"tpu": "splash", "gpu": "flash"}  # platform -> form; every other one has "dense"


def attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    form: str = "auto",
    mesh: Mesh | None = None,
) -> jax.Array:
    """Softmax attention as of `model.attention.attention`, by the form that the platform has a kernel for.

    Args:
        form: "auto", or one of "dense", "splash", "flash"; a kernel on a platform that is not its own is interpreted,
            which is for tests. Where a kernel cannot take the shape, the dense form is used, and a log line says so.
        mesh: whose devices run it, and how rows and heads are split; None is the default device.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    form = AUTO.get(platform, "dense") if form == "auto" else form
    if form != "dense" and (why := refusal(q_BTNH.shape, k_BTKH.shape[2], mesh)):
        _say(form, why)
        form = "dense"
    if form == "dense":
        out_BTNH = blocks.attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT=segment_ids_BT)
        return checkpoint_name(out_BTNH, ATTENTION)
    interpret = AUTO.get(platform) != form
    if form == "splash":
        from w2sr_jax.model.kernels.splash import splash_attention as kernel
    else:
        from w2sr_jax.model.kernels.flash import flash_attention as kernel
    return kernel(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, mesh, interpret=interpret)


@functools.cache
def _say(form: str, why: str) -> None:
    logging.warning("dense attention instead of %s: %s", form, why)
