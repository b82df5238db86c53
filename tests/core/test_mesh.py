import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.mesh import batch_ways, local_rows, make_mesh, mesh_or_none, place_rows, sharding, spec


def test_one_axis_takes_the_devices_that_are_left():
    mesh = make_mesh(MeshConfig(data=2, fsdp=-1, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert batch_ways(mesh) == 4


def test_a_mesh_that_does_not_match_the_devices_names_both():
    with pytest.raises(UsageError, match=r"data=1 x fsdp=3 x tensor=1 does not make 8 devices"):
        make_mesh(MeshConfig(fsdp=3))


def test_one_device_of_many_may_be_asked_for():
    assert mesh_or_none(MeshConfig(data=1, fsdp=1, tensor=1)) is None
    assert mesh_or_none(MeshConfig(data=1, fsdp=-1, tensor=1)).size == 8


def test_more_than_one_open_axis_is_refused():
    with pytest.raises(UsageError, match="at most one -1"):
        MeshConfig(data=-1, fsdp=-1).check()


def test_a_parameter_is_split_over_the_axes_of_the_table():
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    assert spec(("layers", "embed", "heads"), (3, 16, 8), mesh) == P(None, "fsdp", "tensor")
    placed = jax.device_put(jax.numpy.zeros((3, 16, 8)), sharding(("layers", "embed", "heads"), (3, 16, 8), mesh))
    assert placed.addressable_shards[0].data.shape == (3, 4, 4)


def test_an_axis_of_size_one_leaves_the_dimension_whole():
    mesh = make_mesh(MeshConfig(data=8, fsdp=1))
    assert spec(("layers", "embed", "heads"), (3, 5, 7), mesh) == P()


def test_heads_are_never_cut_and_kv_heads_fewer_than_the_axis_stay_whole():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    assert spec(("embed", ("heads", 8)), (16, 64), mesh) == P("fsdp", "tensor")
    assert spec(("embed", ("kv_heads", 4)), (16, 32), mesh) == P("fsdp", "tensor")
    assert spec(("embed", ("kv_heads", 2)), (16, 16), mesh) == P("fsdp")
    with pytest.raises(W2SRError, match=r"q: dimension 'heads' of shape \(16, 16\) \(2 heads\) is not divisible by 4"):
        spec(("embed", ("heads", 2)), (16, 16), mesh, "q")


def test_rows_of_a_batch_are_placed_from_all_of_them_or_from_the_local_ones():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert local_rows(mesh, 8) == list(range(8))
    x = np.arange(24).reshape(8, 3)
    placed = place_rows(x, mesh, 8)
    np.testing.assert_array_equal(placed, x)
    assert placed.addressable_shards[0].data.shape == (2, 3)
    with pytest.raises(UsageError, match="batch of 6 rows does not split over data x fsdp = 4"):
        local_rows(mesh, 6)


def test_a_dimension_that_does_not_divide_is_named_with_its_parameter():
    mesh = make_mesh(MeshConfig(fsdp=8))
    with pytest.raises(W2SRError, match=r"layers.q: dimension 'embed' of shape \(3, 12, 8\) is not divisible by 8"):
        spec(("layers", "embed", "heads"), (3, 12, 8), mesh, "layers.q")
