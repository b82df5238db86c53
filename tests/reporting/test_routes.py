"""Sums of ledgers and the pieces of the cost ratios."""

import json

import pytest

from w2sr_jax.core.cost import LedgerLine, append_ledger
from w2sr_jax.reporting import routes


def line(stage="sft", usd=None, device_count=1, **fields):
    values = {"seconds": 10.0, "device_seconds": 10.0 * device_count, "compile_seconds": 1.0, "tokens_in": 5}
    values |= {"tokens_out": 7, "flops": 1e9} | fields
    return LedgerLine(stage=stage, name=stage, device_kind="TPU v5e", device_count=device_count, usd=usd, **values)


def test_a_total_charges_compilation_on_every_device():
    total = routes.total([line(device_count=4), line("filter")])
    assert total["device_seconds"] == 50.0
    assert total["compile_device_seconds"] == 5.0
    assert total["device_kinds"] == ["TPU v5e"]


def test_a_route_has_a_price_only_if_each_of_its_stages_has_one():
    assert routes.total([line(usd=1.0), line("filter", usd=0.5)])["usd"] == 1.5
    assert routes.total([line(usd=1.0), line("filter")])["usd"] is None
    assert routes.total([])["usd"] is None


def test_a_workdir_named_twice_counts_once(tmp_path):
    append_ledger(tmp_path, line())
    assert len(routes.read_route((str(tmp_path), str(tmp_path)))) == 1


def test_ratios_that_are_not_known_are_none():
    found = routes.ratios([line("grpo", tokens_out=0)], [line("sft", flops=0.0)], [], None)
    unknown = {key for key, value in found.items() if value is None}
    assert {"training_flops", "tokens_generated", "equal_accuracy", "usd", "route_with_teacher"} <= unknown
    assert found["training"] == 1.0


def validated(workdir, rows, device_count=2):
    append_ledger(workdir, line("grpo", device_count=device_count))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(workdir)


@pytest.mark.parametrize(("accuracy", "spent"), [(0.1, 22.0), (0.45, 28.0), (0.6, 28.0), (0.7, None)])
def test_the_seconds_of_steps_are_summed_up_to_the_first_validation_that_reaches_the_accuracy(
    tmp_path, accuracy, spent
):
    rows = [{"step": i, "step_seconds": 1.0 if i else 10.0} for i in range(6)]
    for step, value in ((1, 0.3), (4, 0.6), (5, 0.5)):
        rows[step]["validation_pass_at_1"] = value
    assert routes.spent_until((validated(tmp_path, rows),) * 2, accuracy) == spent


def test_an_earlier_training_of_the_route_is_spent_before(tmp_path):
    first = validated(tmp_path / "a", [{"step": 0, "step_seconds": 5.0}], device_count=1)
    second = validated(tmp_path / "b", [{"step": 0, "step_seconds": 1.0, "validation_pass_at_1": 0.5}])
    assert routes.spent_until((first, second), 0.5) == 7.0


def test_steps_that_do_not_say_how_long_they_took_leave_it_unknown(tmp_path):
    place = validated(tmp_path, [{"step": 0, "seconds": 5.0, "validation_pass_at_1": 0.5}])
    assert routes.spent_until((place,), 0.5) is None


def test_curves_skip_unfinished_lines_and_values_that_are_not_numbers(tmp_path):
    append_ledger(tmp_path, line("sft"))
    rows = [{"step": 0, "train/loss": 2.0}, {"step": 1, "train/loss": None}, {"step": 2, "train/loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "tra')
    assert routes.curves((str(tmp_path),)) == {"SFT loss": [(0, 2.0), (2, 1.0)]}


def test_a_route_without_metrics_has_no_curves(tmp_path):
    append_ledger(tmp_path, line("grpo"))
    assert routes.curves((str(tmp_path),)) == {}
