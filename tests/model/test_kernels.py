"""Attention kernels, interpreted on a CPU, against the dense form in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.model.attention import attention as dense
from w2sr_jax.model.kernels import choice
from w2sr_jax.model.kernels.layout import refusal

HIGHEST = jax.lax.Precision.HIGHEST


def exact(q, k, v, segments):
    """Plain softmax attention, all of it in float32."""
    (_, T, N, H), K = q.shape, k.shape[2]
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    k, v = (jnp.repeat(x, N // K, axis=2) for x in (k, v))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k, precision=HIGHEST) * H**-0.5
    mask = jnp.tril(jnp.ones((T, T), bool)) & (segments[:, None, :, None] == segments[:, None, None, :])
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(jnp.where(mask, scores, -1e30)), v, precision=HIGHEST)


def packed(B, T, ends):
    """Segment ids of rows whose segments end there; what follows is padding."""
    return jnp.tile(
        jnp.asarray(np.searchsorted(ends, np.arange(T), side="right") + 1) * (np.arange(T) < ends[-1]), (B, 1)
    )


def inputs(B, T, N, K, H, dtype=jnp.float32):
    rng = np.random.default_rng(T)
    q, k, v, do = (jnp.asarray(rng.normal(size=(B, T, heads, H)), dtype) for heads in (N, K, K, N))
    return q, k, v, do


def value_and_gradients(function, q, k, v, do):
    out, pull = jax.vjp(function, q, k, v)
    return [x.astype(jnp.float32) for x in (out, *pull(do.astype(out.dtype)))]


def errors(got, want):
    return [float(jnp.linalg.norm(g - w) / jnp.linalg.norm(w)) for g, w in zip(got, want)]


SHAPES = {
    "packed": ((2, 256, 2, 2, 64), (100, 130, 256)),
    "grouped": ((1, 256, 6, 2, 64), (60, 250)),
    "wide heads": ((1, 256, 2, 1, 128), (128, 256)),
    "long": ((1, 2048, 2, 1, 64), (700, 1500, 2048)),
    "many blocks": ((1, 1152, 2, 1, 64), (500, 1152)),  # of 128 tokens: Splash then has two backward kernels
    "ragged": ((2, 333, 4, 2, 64), (1, 200, 300)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("form", ["splash", "flash"])
def test_a_kernel_and_its_gradients_equal_dense_attention(form, name):
    shape, ends = SHAPES[name]
    *arrays, do = inputs(*shape)
    segments = packed(shape[0], shape[1], ends)
    got = value_and_gradients(
        jax.jit(lambda q, k, v: choice.attention(q, k, v, segment_ids_BT=segments, form=form)), *arrays, do
    )
    want = value_and_gradients(lambda q, k, v: exact(q, k, v, segments), *arrays, do)
    assert max(errors(got, want)) < 2e-6


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("form", ["splash", "flash"])
def test_in_bfloat16_a_kernel_errs_by_less_than_one_rounding(form, width):
    *arrays, do = inputs(1, 2048, 2, 1, width, jnp.bfloat16)
    segments = packed(1, 2048, (500, 2048))
    want = value_and_gradients(lambda q, k, v: exact(q, k, v, segments), *arrays, do)
    kernel = jax.jit(lambda q, k, v: choice.attention(q, k, v, segment_ids_BT=segments, form=form))
    found = errors(value_and_gradients(kernel, *arrays, do), want)
    print(form, width, found)
    assert max(found) < 2.0**-8


@pytest.mark.parametrize("width", [64, 128])
def test_queries_scaled_before_they_are_rounded_err_as_little_as_in_the_dense_form(width):
    *arrays, do = inputs(1, 1024, 2, 1, width)
    segments = packed(1, 1024, (300, 1024))
    want = value_and_gradients(lambda q, k, v: exact(q, k, v, segments), *arrays, do)

    def rounded(form, scaled):
        def function(q, k, v):
            q = q * choice.query_scale(form, width) if scaled else q
            q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
            return choice.attention(q, k, v, segment_ids_BT=segments, form=form, q_scaled=scaled)

        return errors(value_and_gradients(jax.jit(function), *arrays, do), want)

    dense_form, splash = rounded("dense", False), rounded("splash", True)
    print(width, dense_form, splash)
    assert all(s < 1.02 * d for s, d in zip(splash, dense_form))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 2, 4)])
@pytest.mark.parametrize("form", ["splash", "flash"])
def test_on_a_mesh_a_kernel_computes_the_same(form, sizes):
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes))))
    *arrays, do = inputs(4, 128, 8, 2, 64)  # with tensor = 4 there are fewer key heads than devices
    segments = packed(4, 128, (50, 120))

    def on(mesh):
        return lambda q, k, v: choice.attention(q, k, v, segment_ids_BT=segments, form=form, mesh=mesh)

    got = value_and_gradients(jax.jit(on(mesh)), *arrays, do)
    want = value_and_gradients(jax.jit(on(None)), *arrays, do)
    assert max(errors(got, want)) < 1e-6


def test_a_shape_that_a_kernel_cannot_take_is_said_once_and_computed_densely(caplog):
    choice._say.cache_clear()
    *arrays, _ = inputs(1, 40, 2, 1, 64)
    segments = packed(1, 40, (40,))
    with caplog.at_level("WARNING", logger="absl"):
        for _ in range(2):
            got = choice.attention(*arrays, segment_ids_BT=segments, form="splash")
    np.testing.assert_array_equal(got, dense(*arrays, segment_ids_BT=segments))
    assert [r.message for r in caplog.records if "instead of splash" in r.message] == [
        "dense attention instead of splash: rows of 40 tokens are shorter than a block of 128"
    ]


def test_what_a_mesh_does_not_split_evenly_is_refused():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    assert refusal((4, 128, 8, 64), 2, mesh) == ""
    assert "3 rows" in refusal((3, 128, 8, 64), 2, mesh)
    assert "6 heads" in refusal((4, 128, 6, 64), 2, mesh)
    assert "head dimension of 16" in refusal((4, 128, 8, 16), 2, mesh)
    assert "do not share" in refusal((4, 128, 12, 64), 3, mesh)


def test_on_a_cpu_auto_is_the_dense_form():
    *arrays, _ = inputs(1, 128, 2, 1, 64)
    jaxpr = str(jax.make_jaxpr(lambda *x: choice.attention(*x))(*arrays))
    assert "pallas_call" not in jaxpr
