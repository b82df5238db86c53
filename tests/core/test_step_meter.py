"""The parts of a step do not overlap, rates are of what they say, and goodput counts restarts."""

import json
import time

import jax
import jax.numpy as jnp
import pytest

from w2sr_jax.core.cost import StageClock
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.profile import Profile, profile_window
from w2sr_jax.core.step_meter import StepMeter, Work
from w2sr_jax.core.topology import CHIPS, GPU_FLOPS_PER_S, parse_topology, peak_flops_per_s

WORK = Work(tokens=60, padded_tokens=80, flops=3e9)
NAP = 0.05


def nap(meter, name, running=None):
    with meter.part(name, running=running):
        time.sleep(NAP)


def test_waiting_is_no_productive_time_and_only_data_is_in_the_rates(tmp_path):
    with StageClock(tmp_path, "t") as clock:
        meter = StepMeter(clock, None, peak_tflops=2.0)
        for name in ("data_wait_seconds", "checkpoint_seconds", "validation_seconds", "profile_seconds"):
            nap(meter, name)
        time.sleep(NAP)
        row = meter.row(WORK)
    assert row["step_seconds"] >= 5 * NAP
    parts = [row[f"{name}_seconds"] for name in ("data_wait", "checkpoint", "validation", "profile")]
    assert all(part >= NAP for part in parts)
    assert row["data_wait_seconds"] + sum(parts[1:]) <= row["step_seconds"] - NAP
    assert row["compile_seconds"] == row["compiles"] == 0
    lost = row["data_wait_seconds"] + row["checkpoint_seconds"] + row["profile_seconds"]
    assert row["productive_seconds"] == pytest.approx(row["step_seconds"] - lost)
    rated = row["step_seconds"] - sum(parts[1:])
    assert row["tokens_per_second"] == row["tokens_per_second_per_chip"] == pytest.approx(60 / rated)
    assert row["mfu"] == pytest.approx(3e9 / rated / 2e12)
    assert row["mfu_peak_tflops"] == 2.0
    assert row["padding"] == pytest.approx(0.25)


def test_data_that_comes_while_the_device_works_costs_nothing(tmp_path):
    class Busy:
        def is_ready(self):
            return False

    with StageClock(tmp_path, "t") as clock:
        done = jnp.ones(()).block_until_ready()
        meter = StepMeter(clock, None, 0.0)
        nap(meter, "data_wait_seconds", running={"loss": Busy()})
        row = meter.row(WORK)
        assert row["data_wait_seconds"] >= NAP
        assert row["productive_seconds"] == pytest.approx(row["step_seconds"])
        nap(meter, "data_wait_seconds", running={"loss": done})
        row = meter.row(WORK)
        assert row["productive_seconds"] == pytest.approx(row["step_seconds"] - row["data_wait_seconds"])


def test_compilation_is_counted_once_and_in_no_other_part(tmp_path):
    with StageClock(tmp_path, "t") as clock:
        meter = StepMeter(clock, None, 0.0)
        with meter.part("checkpoint_seconds"):
            jax.jit(lambda x: jnp.sin(x) @ x.T + time.monotonic())(jnp.ones((8, 8)))
        row = meter.row(WORK)
        assert row["compiles"] >= 1
        assert 0 < row["compile_seconds"] <= row["step_seconds"]
        assert row["compile_seconds"] + row["checkpoint_seconds"] <= row["step_seconds"] + 1e-6
        assert meter.row(WORK)["compiles"] == 0


def test_parts_do_not_nest(tmp_path):
    with StageClock(tmp_path, "t") as clock:
        meter = StepMeter(clock, None, 0.0)
        with meter.part("validation_seconds"):
            nap(meter, "data_wait_seconds")
        row = meter.row(WORK)
    assert row["data_wait_seconds"] == 0
    assert row["validation_seconds"] >= NAP


def test_goodput_counts_what_was_lost_between_attempts_and_done_again(tmp_path):
    with StageClock(tmp_path, "t") as clock:
        meter = StepMeter(clock, None, 0.0)
        rows = []
        for _ in range(3):
            time.sleep(NAP)
            rows.append(meter.row(WORK))
        assert rows[-1]["goodput"] >= sum(row["productive_seconds"] for row in rows) / clock.seconds_since_start
    time.sleep(2 * NAP)  # the machine was away
    with StageClock(tmp_path, "t") as clock:
        meter = StepMeter(clock, None, 0.0, earlier=rows[:2])  # the last step is done again
        time.sleep(NAP)
        before = clock.seconds_since_start
        again = meter.row(WORK)
        productive = sum(row["productive_seconds"] for row in (*rows[:2], again))
        assert productive / clock.seconds_since_start <= again["goodput"] <= productive / before
        assert again["goodput"] <= productive / (productive + 2.9 * NAP)
        assert meter.summary().startswith("3 steps on 1 chip, ")
        assert "no MFU (no peak is known: --config.peak_tflops)" in meter.summary()
    assert json.loads((tmp_path / "clock.json").read_text())["attempts"] == 2


def test_rows_of_an_older_version_do_not_disturb(tmp_path):
    with StageClock(tmp_path, "t") as clock:
        meter = StepMeter(clock, None, 1.0, earlier=[{"step": 0, "loss": 2.0, "seconds": 1.0}])
        assert meter.summary().startswith("1 steps on 1 chip, no rate")
        assert meter.row(WORK)["goodput"] <= 1.0


def test_peaks_are_known_by_the_names_that_jax_gives():
    assert peak_flops_per_s("TPU v6 lite") == CHIPS["v6e"].flops_per_s
    assert peak_flops_per_s("NVIDIA H200") == GPU_FLOPS_PER_S["NVIDIA H200"]
    assert peak_flops_per_s("cpu") is None
    with pytest.raises(UsageError):
        parse_topology("NVIDIA H200:2x2")


@pytest.mark.parametrize("text", ["3", "3:0", ":2", "a:b", "3:2:1", "-1:2", "3-5"])
def test_a_window_that_is_none_is_named(text):
    with pytest.raises(UsageError, match=rf"^config\.profile: expected START:COUNT, .* got '{text}'$"):
        profile_window(text)


def test_a_profile_past_the_end_is_refused(tmp_path):
    assert profile_window("10:3") == (10, 3)
    assert profile_window("") == (0, 0)
    with pytest.raises(UsageError, match=r"^config\.profile: begins at step 8, but the last step is 7$"):
        Profile("8:1", tmp_path, 8)


def test_a_trace_ends_with_a_loop_that_ends_early(tmp_path):
    with StageClock(tmp_path, "t") as clock:
        meter = StepMeter(clock, None, 0.0)
        with Profile("0:5", tmp_path, 9) as profile, profile.step(0, meter):
            jnp.ones(3).block_until_ready()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
