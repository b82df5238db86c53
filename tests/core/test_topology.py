import pytest

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.topology import CHIPS, chip_of, compile_environment, parse_topology


@pytest.mark.parametrize(
    ("name", "chip", "devices"),
    [("v5e:2x2", "v5e", 4), ("v5e:16x16", "v5e", 256), ("v5p:2x2x1", "v5p", 4), ("v6e:4x4", "v6e", 16)],
)
def test_a_slice_is_read_from_its_name(name, chip, devices):
    found = parse_topology(name)
    assert found.chip is CHIPS[chip]
    assert (found.name, found.devices) == (name, devices)


def test_a_cpu_mesh_has_any_size():
    assert parse_topology("cpu:24").devices == 24
    assert parse_topology("cpu:24").chip is None


@pytest.mark.parametrize("name", ["", "v6e", "v6e:16", "v5p:4x4", "v5e:2x2x2", "v9:2x2", "cpu:0", "cpu:two", "cpu"])
def test_what_is_no_slice_is_refused_with_the_forms_that_are(name):
    with pytest.raises(UsageError, match=r"config.topology: .* expected v5e:AxB, v5p:AxBxC, v6e:AxB or cpu:N"):
        parse_topology(name)


def test_a_chip_is_found_by_the_name_that_jax_gives_it():
    assert [chip_of(kind) and chip_of(kind).name for kind in ("TPU v5 lite", "TPU v5", "TPU v6 lite", "cpu")] == [
        "v5e",
        "v5p",
        "v6e",
        None,
    ]


def test_the_compiling_process_gets_no_flags_of_its_parent():
    parent = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "LIBTPU_INIT_ARGS": "--x", "HOME": "/root"}
    for name in ("cpu:3", "v6e:4x4"):
        found = compile_environment(parse_topology(name), parent)
        assert found["HOME"] == "/root"
        assert found["JAX_PLATFORMS"] == "cpu"
        assert not {"XLA_FLAGS", "LIBTPU_INIT_ARGS"} & set(found)
    assert compile_environment(parse_topology("cpu:3"), parent)["JAX_NUM_CPU_DEVICES"] == "3"
    assert compile_environment(parse_topology("v6e:4x4"), parent)["TPU_SKIP_MDS_QUERY"] == "1"
