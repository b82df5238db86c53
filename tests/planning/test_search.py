from w2sr_jax.core.topology import GIB
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.planning.search import KEEPING, Shape, cheapest, explore, kept_bytes, meshes

MODEL = ModelConfig(
    vocab_size=1024, hidden_size=512, intermediate_size=2048, num_layers=8, num_heads=8, num_kv_heads=4, head_dim=64
)


def fitting(gib, activations, seconds=1.0):
    return {
        "fits": gib <= 16,
        "hbm_bytes_per_chip": 16 * GIB,
        "peak_bytes_per_chip": int(gib * GIB),
        "memory": {"activations": int(activations * GIB)},
        "step_seconds_estimate": seconds,
    }


def test_only_meshes_that_split_heads_and_rows_and_hold_the_state_are_tried():
    found = meshes(MODEL, 10**9, 8, batch_size=8, available=16 * GIB)
    assert found[0] == Shape(tensor=1, data=1, fsdp=8, rows=1, remat="full")
    assert {s.tensor for s in found} == {1, 2, 4, 8}  # at 8 each device holds all 4 key heads
    assert all(s.data * s.fsdp * s.tensor == 8 for s in found)
    assert all(16e9 / (s.fsdp * s.tensor) < 16 * GIB for s in found)
    assert not meshes(MODEL, 10**10, 8, batch_size=8, available=16 * GIB)
    assert {s.tensor for s in meshes(MODEL, 10**9, 8, batch_size=4, available=16 * GIB)} == {2, 4, 8}


def test_the_search_goes_to_the_next_mesh_until_one_fits_and_grows_that():
    starts = meshes(MODEL, 10**9, 8, batch_size=32, available=16 * GIB)
    asked = []

    def try_one(shape):
        asked.append(shape)
        return fitting(20, 12) if shape.tensor == 1 and shape.data == 1 else fitting(10 * shape.rows, 2 * shape.rows)

    list(explore(starts, MODEL, 32, 256, 6, try_one))
    assert asked[0] == starts[0]
    assert asked[1] == starts[1]
    assert [s.remat for s in asked if s.data == asked[1].data and s.tensor == asked[1].tensor][:2] == ["full", "none"]
    assert Shape(asked[1].tensor, asked[1].data, asked[1].fsdp, 2, "none") in asked
    assert len(asked) == 6


def test_the_budget_of_compilations_is_kept():
    starts = meshes(MODEL, 10**9, 8, batch_size=32, available=16 * GIB)
    assert len(list(explore(starts, MODEL, 32, 256, 2, lambda shape: fitting(4, 1)))) == 2


def test_a_shape_that_the_compiler_dies_of_is_passed_over():
    starts = meshes(MODEL, 10**9, 8, batch_size=32, available=16 * GIB)
    found = list(explore(starts, MODEL, 32, 256, 3, lambda shape: None if shape == starts[0] else fitting(20, 1)))
    assert [shape for shape, _ in found] == starts[1:3]


def test_the_fastest_that_fits_is_chosen():
    slow, fast, large = (Shape(1, 1, 8, rows, "full") for rows in (1, 2, 4))
    tried = [(slow, fitting(10, 1, 3.0)), (fast, fitting(12, 1, 2.0)), (large, fitting(20, 1, 1.0))]
    assert cheapest(tried)[0] == fast


def test_a_shape_that_leaves_room_comes_before_a_faster_one_that_leaves_none():
    roomy, tight = (Shape(1, 1, 8, rows, "full") for rows in (1, 2))
    tried = [(roomy, fitting(10, 1, 3.0)), (tight, fitting(15.9, 1, 2.0))]
    assert cheapest(tried)[0] == roomy
    assert cheapest(tried[1:])[0] == tight
    assert cheapest([(tight, fitting(20, 1, 1.0))]) is None


def test_flags_are_what_sft_takes():
    assert Shape(tensor=2, data=1, fsdp=8, rows=2, remat="full").flags(128) == (
        "--config.mesh.data=1 --config.mesh.fsdp=8 --config.mesh.tensor=2 --config.train.grad_accum=8 "
        "--config.train.remat=full"
    )


def test_policies_are_ordered_by_what_they_keep_which_grows_with_the_row_alone():
    kept = [kept_bytes(MODEL, 4096, 1, policy) for policy in KEEPING]
    assert kept == sorted(kept, reverse=True)
    assert kept_bytes(MODEL, 4096, 1, "none") == 2 * kept_bytes(MODEL, 2048, 1, "none")


def test_a_policy_is_grown_that_leaves_room_for_what_it_keeps():
    start = Shape(1, 1, 8, 1, "full")
    room = kept_bytes(MODEL, 4096, 1, "projections") / GIB

    def try_one(shape):
        return fitting(16 - 1.01 * room, 10) if shape == start else None

    asked = []
    list(explore([start], MODEL, 8, 4096, 6, lambda shape: asked.append(shape) or try_one(shape)))
    assert [shape.remat for shape in asked] == ["full", "projections"]


def test_where_nothing_fits_the_host_s_memory_is_tried():
    starts, asked = [Shape(1, 1, 8, 1, "full")], []
    list(explore(starts, MODEL, 8, 4096, 6, lambda shape: asked.append(shape) or fitting(20, 10)))
    assert [shape.remat for shape in asked] == ["full", "offload"]
