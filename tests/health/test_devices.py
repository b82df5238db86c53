"""Devices, mesh, matmul and all-reduce on eight fake devices; wrong results are found wherever they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.core.config import MeshConfig
from w2sr_jax.health import devices
from w2sr_jax.health.check import FAIL, PASS, WARN

WHO = ["process 0 (a)", "process 1 (b)"]
FOUR = {"kinds": {"TPU v6 lite": 4}}


def test_devices_are_counted_and_named():
    own = devices.local_devices()
    assert own == {"kinds": {"cpu": 8}}
    assert devices.check_devices([own], WHO, 8, "cpu").status == PASS
    check = devices.check_devices([own], WHO, 16, "")
    assert (check.status, check.found) == (FAIL, "8 devices: 8 cpu; config.devices=16")
    assert devices.check_devices([own], WHO, 0, "TPU v6 lite").status == FAIL


def test_a_host_with_fewer_devices_is_named():
    assert devices.check_devices([FOUR, FOUR], WHO, 8, "").found == "8 devices: 4 TPU v6 lite on each of 2 processes"
    check = devices.check_devices([FOUR, {"kinds": {"TPU v6 lite": 3}}], WHO, 0, "")
    assert (check.status, check.found) == (FAIL, "process 1 (b) has 3 TPU v6 lite, process 0 (a) has 4 TPU v6 lite")


def test_a_mesh_that_does_not_fit_fails():
    assert devices.check_mesh(MeshConfig(data=2, fsdp=-1, tensor=2)).found == "data=2 x fsdp=2 x tensor=2"
    check = devices.check_mesh(MeshConfig(data=3, fsdp=-1, tensor=1))
    assert check.status == FAIL
    assert check.found == "config.mesh: data=3 x fsdp=-1 x tensor=1 does not make 8 devices (cpu)"
    check = devices.check_mesh(MeshConfig(data=1, fsdp=1, tensor=1))
    assert (check.status, check.found) == (WARN, "one device; 7 others are left out")


def test_a_wrong_product_is_found(monkeypatch):
    assert devices.check_matmul().status == PASS
    monkeypatch.setattr(devices.jnp, "matmul", lambda a, b, **_: jax.lax.dot(a, b, preferred_element_type=a.dtype))
    check = devices.check_matmul()  # accumulated in bfloat16
    assert check.status == FAIL
    assert check.found.startswith("wrong results on ")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("count", [1, 8, 300])
def test_contributions_differ_and_add_up_exactly(dtype, count):
    parts = [devices.contribution(i, count, 8 * max(count, 128), dtype) for i in range(count)]
    total = sum(part.astype(np.float64) for part in parts)
    expected = devices.expected_sum(count, 8 * max(count, 128), dtype)
    assert expected.dtype == dtype
    assert devices.exact(total.astype(dtype), expected)
    assert (total == expected.astype(np.float64)).all()  # no rounding anywhere
    for lost in (parts[0], parts[-1]):
        assert not devices.exact((total - lost.astype(np.float64)).astype(dtype), expected)


def test_all_reduce_over_all_devices_is_exact_and_timed():
    told = devices.all_reduce((0.01, 0.1))
    assert told["wrong"] == []
    assert [mib for mib, _ in told["rates"]] == [0.01, 0.1]
    assert devices.check_sums([told], WHO).status == PASS
    check = devices.check_bandwidth([told], 0.0)
    assert check.status == PASS
    assert "0.1 MiB" in check.found
    assert "1.75 times" in check.found
    assert devices.check_bandwidth([told], 1e9).status == FAIL


def test_a_device_that_drops_out_of_the_sum_is_found(monkeypatch):
    give = devices.contribution
    monkeypatch.setattr(devices, "contribution", lambda i, *rest: give(i, *rest) * (i != 5))
    check = devices.check_sums([devices.all_reduce((0.01,))], WHO)
    assert check.status == FAIL
    assert check.found.startswith("process 0 (a): wrong in bfloat16 on ")


def test_the_rate_is_that_of_the_slowest_process():
    told = [{"wrong": [], "rates": [[1.0, seconds]]} for seconds in (0.001, 0.1)]
    assert "1 MiB 0.0105 GB/s (100 ms)" in devices.check_bandwidth(told, 0.0).found
