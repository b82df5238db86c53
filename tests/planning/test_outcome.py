import pytest

from w2sr_jax.core.config import PriceConfig
from w2sr_jax.core.topology import GIB, parse_topology
from w2sr_jax.planning import outcome
from w2sr_jax.planning.oom import read_overflow

# What libtpu 0.0.50.1 said of a 0.5B step on v5e:2x2 with 8 rows a chip, cut down.
OVERFLOW = """RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: XLA:TPU compile permanent error. Ran out of memory in \
memory space hbm. Used 15.79G of 15.75G hbm. Exceeded hbm capacity by 38.78M.

Total hbm usage >= 16.04G:
    reserved        258.00M
    program          14.40G
    arguments         1.38G

Program hbm requirement 14.40G:
    global            1.97M
    HLO temp         14.36G (99.9% utilization: Unpadded (12.36G) Padded (12.37G), 13.8% fragmentation (1.99G))
    overlays         39.64M

  Largest program allocations in hbm:

  1. Size: 9.27G
     Operator: op_name="jit(step)/while/body/bcd,dv->bcv/dot_general"
     Shape: f32[32,512,151936]{2,1,0:T(8,128)}
     ==========================

  2. Size: 74.19M
     Shape: bf16[151936,224]{1,0:T(8,128)(2,1)}
     ==========================
"""
EARLY = "CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries (192.00G) exceeds \
available HBM (15.75G). HLO module: jit__lambda."
COMPILED = {
    "versions": {"jax": "1"},
    "compiler_options": {},
    "argument_bytes": {"parameters": 4 * GIB, "optimizer": 8 * GIB, "batch": 1000},
    "flops": 8e15,
    "kernel_flops": 0.0,
    "compile_seconds": 60.0,
    "memory": {
        "argument_size_in_bytes": 12 * GIB + 5000,
        "generated_code_size_in_bytes": GIB // 4,
        "total_allocation_bytes": 14 * GIB,
        "peak_memory_in_bytes": 13 * GIB,
    },
    "program": {
        "cycles": 3_000_000_000,
        "collectives": {
            "all-reduce": {"count": 1, "bytes": 10**11, "synchronous_bytes": 10**11},
            "all-gather": {"count": 1, "bytes": 10**11, "synchronous_bytes": 0},
        },
        "unknown_loops": 0,
    },
}


def plan(found, topology="v5e:2x2", price=None):
    return outcome.plan_of(parse_topology(topology), found, tokens=500_000, model_flops=6e15, price=price)


def test_the_kinds_of_memory_add_up_to_the_peak():
    found = plan(COMPILED)
    assert found["fits"]
    assert found["peak_bytes_per_chip"] == 14 * GIB + GIB // 4 == sum(found["memory"].values())
    assert found["memory"]["padding"] == 4000
    assert found["memory"]["code"] == GIB // 4


def test_the_step_is_cycles_and_the_collectives_that_nothing_hides():
    found = plan(COMPILED, price=PriceConfig(usd_per_device_hour=1.2, source="a list"))
    # 2 s of cycles; 100 GB all-reduced, twice over the wire at 200 GB/s inbound; the gather is hidden.
    assert found["step_seconds_estimate"] == pytest.approx(2 + 1)
    assert found["step_seconds_parts"]["all_collectives"] == pytest.approx(1.5)
    assert found["tokens_per_second"] == pytest.approx(500_000 / 3)
    assert found["usd_per_billion_tokens"] == pytest.approx(1.2 * 4 * 3 / 3600 / 500_000 * 1e9)
    assert found["model_flops_utilisation"] == pytest.approx(6e15 / 3 / 4 / 197e12)
    assert found["price"]["source"] == "a list"
    assert plan(COMPILED)["usd_per_billion_tokens"] is None


def test_a_program_that_does_not_fit_says_by_how_much_and_where_it_goes():
    found = plan({k: v for k, v in COMPILED.items() if k not in ("memory", "program")} | {"out_of_memory": OVERFLOW})
    assert not found["fits"]
    assert not found["peak_is_lower_bound"]
    assert found["peak_bytes_per_chip"] == int(15.79 * GIB)
    assert found["over_bytes_per_chip"] == int(15.79 * GIB) - int(15.75 * GIB)
    assert found["step_seconds_estimate"] is None
    assert found["largest_buffers"] == [
        "9.27G f32[32,512,151936] bcd,dv->bcv/dot_general",
        "74.19M bf16[151936,224] a copy or an argument",
    ]
    advice = outcome.advice(found, state_bytes=8 * GIB, chips=4, group_rows=8)
    assert advice[0].startswith("does not fit by 0.04 GiB a chip")
    assert any("rows_per_group=1" in line for line in advice)


def test_a_state_that_is_too_large_asks_for_more_chips():
    found = plan({k: v for k, v in COMPILED.items() if k not in ("memory", "program")} | {"out_of_memory": EARLY})
    assert found["peak_is_lower_bound"]
    assert found["peak_bytes_per_chip"] == 192 * GIB + 12 * GIB + 1000
    advice = outcome.advice(found, state_bytes=100 * GIB, chips=4, group_rows=1)
    assert advice[1].endswith("it takes 7 of these chips or more")


def test_a_message_of_another_form_is_still_an_overflow():
    assert read_overflow("RESOURCE_EXHAUSTED: something else") is None
    found = plan({k: v for k, v in COMPILED.items() if k not in ("memory", "program")} | {"out_of_memory": "other"})
    assert not found["fits"]
    assert found["peak_is_lower_bound"]
    assert found["over_bytes_per_chip"] > 0


def test_a_cpu_mesh_has_no_time_and_its_share_of_the_machine():
    found = plan(COMPILED, "cpu:4")
    assert found["step_seconds_estimate"] is None
    assert found["hbm_bytes_per_chip"] == outcome.host_memory() // 4
    assert "no time estimate" in outcome.basis(parse_topology("cpu:4"), COMPILED, "A step")


def test_the_basis_names_versions_clock_and_what_was_not_measured():
    said = outcome.basis(parse_topology("v5e:2x2"), COMPILED | {"kernel_flops": 1.0}, "A step")
    for part in ("v5e:2x2", "jax 1", "1.5 GHz", "nothing was run", "Pallas kernels"):
        assert part in said
