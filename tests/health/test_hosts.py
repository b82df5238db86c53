"""Versions, environment, memory, limits and clocks: each check passes here, and fails where it should."""

import random
import resource

import pytest

from w2sr_jax.core.memory import host_free_bytes, host_rss_bytes
from w2sr_jax.health import hosts
from w2sr_jax.health.check import FAIL, PASS, WARN

WHO = ["process 0 (a)", "process 1 (b)"]


def test_versions_differ_in_one_line():
    own = hosts.package_versions()
    assert own["flax"] != "(absent)"
    assert hosts.check_versions([own, own], WHO).status == PASS
    check = hosts.check_versions([own, own | {"flax": "0.1"}], WHO)
    assert (check.status, check.found) == (FAIL, f"process 1 (b) has flax 0.1, process 0 (a) has {own['flax']}")


def test_the_environment_is_shown_without_secrets_and_without_what_tells_processes_apart():
    variables = {
        "XLA_FLAGS": "--xla_a",
        "JAX_ENABLE_X64": "1",
        "JAX_COORDINATOR_ADDRESS": "h:1",
        "JAX_PROCESS_ID": "1",
        "HF_HOME": "/cache",
        "HF_HUB_TOKEN": "secret",
        "HOME": "/root",
    }
    assert hosts.environment(hosts.DECISIVE, variables) == {"XLA_FLAGS": "--xla_a", "JAX_ENABLE_X64": "1"}
    assert hosts.environment(hosts.TELLING, variables) == {"HF_HOME": "/cache"}


def test_another_xla_flag_fails_and_another_cache_is_a_warning():
    def of(flags="", home="/cache"):
        return {"decisive": {"XLA_FLAGS": flags}, "telling": {"HF_HOME": home}}

    assert hosts.check_environment([of(), of()], WHO).status == PASS
    assert hosts.check_environment([of(), of("--xla_a")], WHO).status == FAIL
    assert hosts.check_environment([of(), of(home="/tmp")], WHO).status == WARN


def test_too_little_memory_fails():
    assert hosts.check_memory(0.001).status == PASS
    check = hosts.check_memory(1e6)
    assert check.status == FAIL
    assert check.found.endswith(" GiB free, 1e+06 wanted")
    assert host_rss_bytes() > 1e7


def test_a_container_has_the_memory_that_its_limit_leaves(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   64 kB\n")
    assert host_free_bytes(tmp_path, tmp_path) == 65536
    (tmp_path / "memory.max").write_text("50000\n")
    (tmp_path / "memory.current").write_text("20000\n")
    assert host_free_bytes(tmp_path, tmp_path) == 30000
    # Pages of files that nobody needs any more are given up when somebody wants memory.
    (tmp_path / "memory.stat").write_text("anon 8000\nfile 12000\ninactive_file 11000\nactive_file 1000\n")
    assert host_free_bytes(tmp_path, tmp_path) == 41000
    (tmp_path / "memory.max").write_text("max\n")
    assert host_free_bytes(tmp_path, tmp_path) == 65536
    assert host_free_bytes(tmp_path / "none", tmp_path / "none") is None


def test_too_few_open_files_fail():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
        check = hosts.check_open_files(1024)
        assert (check.status, check.found) == (FAIL, "500 at most, 1024 wanted")
        assert check.remedy.startswith("ulimit -n 1024")
        assert hosts.check_open_files(500).status == PASS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_little_shared_memory_is_a_failure_only_where_it_is_needed(tmp_path):
    assert hosts.check_shared_memory(0.0, needed=True).status == PASS
    assert hosts.check_shared_memory(1e6, needed=False).status == WARN
    assert hosts.check_shared_memory(1e6, needed=True).status == FAIL
    assert hosts.check_shared_memory(1.0, needed=True, place=tmp_path / "none").status == FAIL


def test_vllm_is_missed_only_where_it_is_needed(monkeypatch):
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    assert hosts.check_vllm(needed=False).status == PASS
    assert hosts.check_vllm(needed=True).status == FAIL


def stamps(offsets, rounds=8, delay=0.01, seed=0):
    """What processes read around barriers whose messages take up to `delay` seconds, with clocks set off."""
    rng, found = random.Random(seed), [[] for _ in offsets]
    for turn in range(rounds):
        came = [turn + rng.uniform(0, delay) for _ in offsets]
        left = [max(came) + rng.uniform(0, delay) for _ in offsets]
        for place, offset in enumerate(offsets):
            found[place].append((came[place] + offset, left[place] + offset))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_hold_the_true_offset(seed):
    true = [0.0, 2.5, -0.003, 1e4]
    for (low, high), offset in zip(hosts.clock_offsets(stamps(true, seed=seed)), true):
        assert low <= offset <= high
        assert high - low < 0.04


def test_a_clock_that_is_off_fails_and_one_that_cannot_be_told_is_a_warning():
    assert hosts.check_clocks(stamps([0.0, 0.5]), WHO, 1.0).status == PASS
    for off in (2.0, -2.0):
        check = hosts.check_clocks(stamps([0.0, off]), WHO, 1.0)
        assert check.status == FAIL
        assert check.found.startswith(f"process 1 (b) is {'+' if off > 0 else '-'}")
    assert hosts.check_clocks(stamps([0.0, 0.0], rounds=1, delay=5.0), WHO, 1.0).status == WARN
    jumped = stamps([0.0, 0.0])
    jumped[1][4:] = [(came + 60, left + 60) for came, left in jumped[1][4:]]
    check = hosts.check_clocks(jumped, WHO, 1.0)
    assert (check.status, check.found) == (WARN, "the clock of process 1 (b) or of process 0 (a) was set meanwhile")
    assert hosts.check_clocks(stamps([0.0]), WHO[:1], 1.0).status == PASS
