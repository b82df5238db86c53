import jax
import jax.numpy as jnp
import pytest

from w2sr_jax.core.config import MeshConfig, OptimizerConfig
from w2sr_jax.core.cost import train_flops
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.planning.flops import traced_flops
from w2sr_jax.planning.steps import decode_step, sft_step

MODEL = ModelConfig(
    vocab_size=512, hidden_size=64, intermediate_size=256, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16
)


def test_matmuls_count_as_often_as_their_scan_runs():
    def f(a, b):
        return jax.lax.scan(lambda c, _: (c @ b, None), a, None, length=7)[0]

    shapes = jax.ShapeDtypeStruct((4, 8), jnp.float32), jax.ShapeDtypeStruct((8, 8), jnp.float32)
    assert traced_flops(jax.make_jaxpr(f)(*shapes)) == 7 * 2 * 4 * 8 * 8
    assert traced_flops(jax.make_jaxpr(f)(*shapes), kernels_only=True) == 0


def test_the_costlier_branch_of_a_cond_counts():
    def f(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a)

    shapes = jax.ShapeDtypeStruct((4, 8), jnp.float32), jax.ShapeDtypeStruct((8, 8), jnp.float32)
    assert traced_flops(jax.make_jaxpr(f)(*shapes)) == 2 * 4 * 8 * 8


@pytest.mark.parametrize(("remat", "accum"), [("none", 1), ("full", 1), ("full", 4)])
def test_a_train_step_does_the_model_s_flops_and_those_that_remat_repeats(remat, accum):
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=1), jax.devices()[:2])
    train = TrainConfig(dtype="float32", remat=remat, grad_accum=accum)
    step = sft_step(MODEL, OptimizerConfig(), train, mesh, rows=8, length=32)
    sizes = flops_shape(MODEL)
    # One block of 32 queries sees all 32 keys: the dense kernel does twice what causal attention needs.
    expected = train_flops(tokens=8 * 32, context=64, **sizes)
    if remat == "full":
        # Neither the head nor the last matmul of a layer is needed again.
        once = MODEL.vocab_size * MODEL.hidden_size + 3 * MODEL.intermediate_size * MODEL.hidden_size
        layers = sizes | {"num_params": sizes["num_params"] - once}
        expected += train_flops(tokens=8 * 32, context=64, **layers) / 3
    assert traced_flops(step.traced.jaxpr) == pytest.approx(expected, rel=0.02)


def test_a_decode_step_multiplies_each_parameter_once_a_row():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=1), jax.devices()[:2])
    step = decode_step(MODEL, "float32", mesh, rows=4, slots=64)
    attention = 4 * MODEL.num_layers * MODEL.num_heads * MODEL.head_dim * 64 * 4
    assert traced_flops(step.traced.jaxpr) == pytest.approx(
        2 * 4 * flops_shape(MODEL)["num_params"] + attention, rel=0.02
    )
