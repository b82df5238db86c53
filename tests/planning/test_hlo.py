import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from w2sr_jax.planning.hlo import Collective, read_program, shape_bytes

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


# A decode loop over a cache of 2,048 slots as the TPU compiler writes it, cut down: layers are a loop within it, the
# choice of a token is a conditional, and there is something before it.
DECODE = """HloModule jit_decode, is_scheduled=true

%layer (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %dot = f32[4]{0} fusion(%p), kind=kOutput, calls=%matmul, backend_config={"estimated_cycles":"1000"}
  %all-reduce = f32[4]{0} all-reduce(%dot), channel_id=1, to_apply=%add
  ROOT %tuple.1 = (s32[], f32[4]{0}) tuple(%p, %all-reduce)
}

%layers (p.1: (s32[], f32[4])) -> pred[] {
  %p.1 = (s32[], f32[4]{0}) parameter(0)
  %constant.1 = s32[]{:T(128)} constant(28)
  %gte = s32[] get-tuple-element(%p.1), index=0
  ROOT %compare.1 = pred[] compare(%gte, %constant.1), direction=LT
}

%likeliest (p.2: f32[4]) -> s32[4] {
  %p.2 = f32[4]{0} parameter(0)
  ROOT %argmax = s32[4]{0} reduce(%p.2), to_apply=%max, backend_config={"estimated_cycles":"10"}
}

%of_all (p.3: f32[4]) -> f32[4] {
  ROOT %p.3 = f32[4]{0} parameter(0)
}

%of_some (p.4: f32[4]) -> f32[4] {
  %p.4 = f32[4]{0} parameter(0)
  %all-gather = f32[16]{0} all-gather(%p.4), channel_id=2, dimensions={0}
  ROOT %sort = f32[4]{0} sort(%all-gather), dimensions={0}, to_apply=%less, backend_config={"estimated_cycles":"500"}
}

%drawn (p.5: f32[4]) -> s32[4] {
  %p.5 = f32[4]{0} parameter(0)
  %some = pred[] constant(true)
  %conditional = f32[4]{0} conditional(%some, %p.5, %p.5), true_computation=%of_some, false_computation=%of_all
  ROOT %draw = s32[4]{0} fusion(%conditional), kind=kLoop, calls=%noise, backend_config={"estimated_cycles":"20"}
}

%body (p.6: (s32[], f32[4], pred[4])) -> (s32[], f32[4], pred[4]) {
  %p.6 = (s32[], f32[4]{0}, pred[4]{0}) parameter(0)
  %while.1 = (s32[], f32[4]{0}) while(%p.6), condition=%layers, body=%layer
  %index = s32[] constant(0)
  %conditional.1 = s32[4]{0} conditional(%index, %while.1, %while.1), branch_computations={%drawn, %likeliest}
  ROOT %tuple.2 = (s32[], f32[4]{0}, pred[4]{0}) tuple(%p.6, %conditional.1)
}

%more (p.7: (s32[], f32[4], pred[4])) -> pred[] {
  %p.7 = (s32[], f32[4]{0}, pred[4]{0}) parameter(0)
  %constant.2 = s32[]{:T(128)} constant(2048)
  %slot = s32[] get-tuple-element(%p.7), index=0
  %room = pred[]{:T(512)S(6)} compare(%slot, %constant.2), direction=LT
  %enough = pred[] fusion(%p.7), kind=kLoop, calls=%count
  ROOT %and = pred[] and(%room, %enough)
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %copy.1 = f32[4]{0} copy(%a), backend_config={"estimated_cycles":"70000"}
  %while.2 = (s32[], f32[4]{0}, pred[4]{0}) while(%copy.1), condition=%more, body=%body
  ROOT %r = f32[4]{0} get-tuple-element(%while.2), index=1
}
"""


def test_a_token_is_one_trip_of_the_decode_loop_however_long_its_cache_is():
    found = read_program(DECODE, one_trip=True)
    assert found.cycles == 28 * 1000 + 20 + 500
    assert found.collectives == {"all-reduce": Collective(28, 28 * 16, 28 * 16), "all-gather": Collective(1, 64, 64)}
    assert found.unknown_loops == 0
    assert read_program(DECODE.replace("constant(2048)", "constant(64)"), one_trip=True) == found
    # Of a CPU's program nothing says how often the loop runs.
    assert read_program(DECODE.replace("%constant.2 = s32[]{:T(128)} constant(2048)", ""), one_trip=True) == found
    assert read_program(DECODE).cycles == 2048 * found.cycles + 70000


def test_of_a_conditional_the_costliest_branch_counts():
    drawn = read_program(DECODE, one_trip=True)
    assert (drawn.cycles, drawn.collectives["all-gather"].count) == (28 * 1000 + 20 + 500, 1)
    costly = read_program(DECODE.replace('"estimated_cycles":"10"', '"estimated_cycles":"9000"'), one_trip=True)
    assert costly.cycles == 28 * 1000 + 9000
    assert set(costly.collectives) == {"all-reduce"}
    # Where nothing carries cycles, what is moved decides.
    unscheduled = read_program(DECODE.replace("estimated_cycles", "none"), one_trip=True)
    assert (unscheduled.cycles, unscheduled.collectives["all-gather"].count) == (0, 1)


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
