"""FLOPs against published figures and hand counts; the clock over kills; the ledger."""

import json
import time

import jax
import jax.numpy as jnp
import pytest

from w2sr_jax.core import cost, processes
from w2sr_jax.core.config import PriceConfig
from w2sr_jax.core.cost import CompileTimer, LedgerLine, StageClock, append_ledger, mean_devices, read_ledger
from w2sr_jax.core.files import write_json
from w2sr_jax.core.records import RecordError

QWEN_HALF_B = {"num_layers": 24, "num_heads": 14, "head_dim": 64}


def test_training_a_token_of_qwen_half_b_at_4096_costs_2_96_plus_0_53_gigaflops():
    with_attention = cost.train_flops(494_000_000, 1, context=4096, **QWEN_HALF_B)
    without = cost.train_flops(494_000_000, 1)
    assert without == pytest.approx(2.96e9, rel=0.01)
    assert with_attention - without == pytest.approx(0.53e9, rel=0.01)


def test_training_costs_three_forward_passes():
    shape = {"context": 100, **QWEN_HALF_B}
    assert cost.train_flops(1000, 7, **shape) == 3 * cost.prefill_flops(1000, 7, **shape)


def test_decoding_a_whole_sequence_costs_what_prefilling_it_costs():
    # A sequence of T tokens decoded one by one attends to T/2 keys on average, as causal prefill does.
    decoded = cost.decode_flops(1000, 64, context=32, **QWEN_HALF_B)
    assert decoded == cost.prefill_flops(1000, 64, context=64, **QWEN_HALF_B)
    assert decoded == 2 * 1000 * 64 + 24 * 2 * (2 * 14 * 64 * 32) * 64  # QK^T and AV, a multiply-add is 2


def test_no_price_gives_no_cost_rather_than_zero():
    assert cost.cost_usd(7200, 0.0) is None
    assert cost.cost_usd(7200, 2.5) == 5.0


def test_compile_time_counts_nested_events_once(monkeypatch):
    timer, now = CompileTimer(), iter([10.0, 12.0, 30.0, 31.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    timer.add("/jax/core/compile/jaxpr_trace_duration", 4.0)  # 6..10, inside the next
    timer.add("/jax/core/compile/jaxpr_trace_duration", 7.0)  # 5..12
    timer.add("/jax/other", 100.0)
    timer.add("/jax/core/compile/backend_compile_duration", 2.0)  # 28..30
    timer.add("/jax/core/compile/backend_compile_duration", 1.0)  # 30..31
    assert timer.seconds == 7.0 + 3.0


def test_the_clock_sees_compilation_and_stops_listening_afterwards(tmp_path):
    with StageClock(tmp_path, "sft") as clock:
        jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T + 17)(jnp.ones((3, 3))).block_until_ready()
    seen = clock.compile_seconds
    assert 0 < seen <= clock.seconds
    jax.jit(lambda x: jnp.tan(x) - 23)(jnp.ones(5)).block_until_ready()
    assert clock.compile_seconds == seen
    assert (clock.device_kind, clock.device_count) == ("cpu", 1)  # 8 fake devices share one process's cores


def test_a_killed_attempt_counts_and_a_line_sums_all_attempts(tmp_path):
    workdir = tmp_path / "grpo-0"
    write_json(workdir / "clock.json", {"seconds": 100.0, "compile_seconds": 10.0, "attempts": 2})
    with StageClock(workdir, "grpo", device_kind="TPU v5e", device_count=4) as clock:
        line = clock.line(tokens_in=5, tokens_out=6, flops=1e9, price=PriceConfig(usd_per_device_hour=1.2))
    assert 100 <= line.seconds < 101
    assert line.device_seconds == pytest.approx(4 * line.seconds, abs=0.1)
    assert line.usd == pytest.approx(line.device_seconds / 3600 * 1.2)
    assert (line.stage, line.name, line.attempts, line.resumed) == ("grpo", "grpo-0", 3, True)
    assert (line.tokens_in, line.tokens_out, line.flops, line.compile_seconds) == (5, 6, 1e9, 10.0)


def test_each_attempt_counts_on_the_devices_that_it_had(tmp_path):
    with StageClock(tmp_path, "sft", device_kind="TPU v5e", device_count=256) as clock:
        clock._started -= 10.0  # it has run for ten seconds
    with StageClock(tmp_path, "sft", device_kind="TPU v5e", device_count=4) as clock:
        clock._started -= 100.0
    assert clock.line().device_seconds == pytest.approx(10 * 256 + 100 * 4, rel=0.01)
    assert clock.line().seconds == pytest.approx(110, rel=0.01)
    assert mean_devices(clock.line().to_json()) == pytest.approx((10 * 256 + 100 * 4) / 110, rel=0.01)


def test_the_devices_of_an_engine_in_another_process_are_charged_instead(tmp_path):
    with StageClock(tmp_path, "distill") as clock:
        clock._started -= 10.0
        clock.occupy("NVIDIA H200", 8)
    line = clock.line(price=PriceConfig(usd_per_device_hour=3.6))
    assert (line.device_kind, line.device_count) == ("NVIDIA H200", 8)
    assert line.device_seconds == pytest.approx(80, rel=0.01)
    assert line.usd == pytest.approx(0.08, rel=0.01)


def test_tick_saves_the_elapsed_time_for_a_successor_of_a_killed_process(tmp_path):
    with StageClock(tmp_path, "sft", device_kind="cpu", save_every_s=0.0) as clock:
        before = json.loads((tmp_path / "clock.json").read_text())["seconds"]
        time.sleep(0.02)
        clock.tick()
        after = json.loads((tmp_path / "clock.json").read_text())
    assert after["seconds"] >= before + 0.02
    assert after["attempts"] == 1


def test_tick_writes_nothing_before_its_time(tmp_path):
    with StageClock(tmp_path, "sft", device_kind="cpu", save_every_s=60.0) as clock:
        (tmp_path / "clock.json").unlink()
        clock.tick()
        assert not (tmp_path / "clock.json").exists()


def test_the_ledger_keeps_the_last_line_of_each_run(tmp_path):
    with StageClock(tmp_path, "filter", device_kind="cpu") as clock:
        append_ledger(tmp_path, clock.line(tokens_in=1))
        append_ledger(tmp_path, clock.line(tokens_in=2))
    (line,) = read_ledger(tmp_path)
    assert isinstance(line, LedgerLine)
    assert (line.tokens_in, line.usd, line.resumed) == (2, None, False)


def test_a_missing_ledger_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"ledger\.jsonl: no such file"):
        read_ledger(tmp_path)


def test_a_process_that_does_not_write_leaves_the_ledger_alone(tmp_path, monkeypatch):
    with StageClock(tmp_path, "sft", device_kind="cpu") as clock:
        line = clock.line()
    append_ledger(tmp_path, line)
    whole = (tmp_path / "ledger.jsonl").read_bytes()
    (tmp_path / "ledger.jsonl").write_bytes(whole + b'{"schema": "led')  # process 0 has not mended it yet
    with monkeypatch.context() as other:
        other.setattr(processes, "index", lambda: 1)
        append_ledger(tmp_path, line)
    append_ledger(tmp_path, line)
    assert (tmp_path / "ledger.jsonl").read_bytes() == 2 * whole
