import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from w2sr_jax.planning.hlo import read_program, shape_bytes

# The forms in which the TPU compiler writes what this file reads, cut down.
TPU = """HloModule jit_step, is_scheduled=true

%all-reduce-scatter.1 (input.1: bf16[16,8]) -> bf16[4,8] {
  %input.1 = bf16[16,8]{1,0} parameter(0)
  %all-reduce.1 = bf16[16,8]{1,0} all-reduce(%input.1), channel_id=3, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[4,8]{1,0} dynamic-slice(%all-reduce.1)
}

%fused_computation.1 (param_0: f32[4]) -> (f32[4], f32[16]) {
  %param_0 = f32[4]{0} parameter(0)
  %all-gather.1 = f32[16]{0} all-gather(%param_0), channel_id=4, dimensions={0}
  ROOT %custom-call.1 = (f32[4]{0}, f32[16]{0}) custom-call(%param_0, %all-gather.1), custom_call_target="x"
}

%async_collective_fusion.2 (param_1: f32[4]) -> (f32[4], f32[16]) {
  %param_1 = f32[4]{0} parameter(0)
  %all-gather.2 = f32[16]{0} all-gather(%param_1), channel_id=4, dimensions={0}
  ROOT %tuple.9 = (f32[4]{0}, f32[16]{0}) tuple(%param_1, %all-gather.2)
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %fusion.7 = bf16[4,8]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %async-collective-start = (f32[4]{0}, f32[16]{0}) fusion(%p), kind=kCustom, calls=%fused_computation.1
  %fusion.8 = (f32[4]{0}, f32[16]{0}) fusion(%p), kind=kOutput, calls=%async_collective_fusion.2, CYCLES
  %async-collective-done = f32[16]{0} fusion(%p), kind=kCustom, calls=%fused_computation.1
  ROOT %tuple.1 = (s32[], f32[4]{0}) tuple(%p)
}

%cond (p.1: (s32[], f32[4])) -> pred[] {
  %p.1 = (s32[], f32[4]{0}) parameter(0)
  %constant.1 = s32[] constant(24)
  %gte = s32[] get-tuple-element(%p.1), index=0
  ROOT %compare.1 = pred[] compare(%gte, %constant.1), direction=LT
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %while.1 = (s32[], /*index=1*/f32[4]{0}) while(%a), condition=%cond, body=%body
  %copy.1 = f32[4]{0} copy(%a), backend_config={"window_config":{"estimated_cycles":"50"}}
  %splash = f32[4]{0} custom-call(%copy.1), custom_call_target="tpu_custom_call"
  ROOT %r = f32[4]{0} copy(%splash)
}
""".replace("CYCLES", 'backend_config={"window_config":{"estimated_cycles":"1000","iteration_bounds":["1"]}}')


def test_cycles_and_collectives_of_a_tpu_program_count_as_often_as_their_loop_runs():
    found = read_program(TPU)
    assert found.cycles == 24 * 1000 + 50
    assert found.unknown_loops == 0
    scatter, gather = found.collectives["reduce-scatter"], found.collectives["all-gather"]
    assert (scatter.count, scatter.bytes, scatter.synchronous_bytes) == (24, 24 * 16 * 8 * 2, 24 * 16 * 8 * 2)
    # The start of an asynchronous gather counts, the matmuls that it runs along with and its end do not.
    assert (gather.count, gather.bytes, gather.synchronous_bytes) == (24, 24 * 16 * 4, 0)
    assert set(found.collectives) == {"reduce-scatter", "all-gather"}


def test_a_loop_without_a_readable_end_counts_once_and_is_told():
    found = read_program(TPU.replace("constant(24)", "get-tuple-element(%p.1), index=1"))
    assert (found.unknown_loops, found.cycles) == (1, 1050)


def test_the_collectives_of_a_compiled_scan_are_found():
    mesh = Mesh(np.array(jax.devices()), ("x",))
    split = NamedSharding(mesh, PartitionSpec("x"))

    @jax.jit
    def step(values):
        def one(total, _):
            return total + jnp.sum(jnp.sin(values * total)), None

        return jax.lax.scan(one, 1.0, None, length=5)[0]

    text = step.lower(jax.ShapeDtypeStruct((64,), jnp.float32, sharding=split)).compile().as_text()
    found = read_program(text)
    assert found.unknown_loops == 0
    assert sum(c.count for c in found.collectives.values()) == 5
    assert found.cycles == 0


def test_bytes_of_types():
    assert shape_bytes("bf16[4,8]{1,0:T(8,128)(2,1)}") == 64
    assert shape_bytes("(f32[4]{0}, pred[3], u32[])") == 16 + 3 + 4
    assert shape_bytes("f8e4m3fn[10]") == 10
