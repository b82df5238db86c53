"""What `make bench-check` holds a run against, and the exponents of the table. No wall time."""

import pytest

from benchmarks import history
from benchmarks.pipeline import pipeline_rows
from benchmarks.scaling import exponent, points
from w2sr_jax.core.rows import Row, machine


def one(ratio, what="step", runs=5):
    return Row(what=what, ours=1.0, peer=ratio, unit="s", against="eager", runs=runs)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.jsonl"


def test_a_ratio_may_fall_by_ten_per_cent_of_the_newest_one(path):
    history.accept([one(5.0)], "old", "2026-01-01", path)
    history.accept([one(2.0)], "new", "2026-01-02", path)
    lines = history.read(path)
    assert [line["commit"] for line in lines] == ["old", "new"]
    assert history.check([one(1.81)], lines, machine()) == ([], [])
    fallen, _ = history.check([one(1.79)], lines, machine())
    assert fallen == ["step, against eager, s: 1.79, was 2.00 at new"]


def test_another_machine_s_figures_do_not_count(path):
    history.accept([one(5.0)], "c", "2026-01-01", path)
    lines = [line | {"machine": "another"} for line in history.read(path)]
    assert history.check([one(1.0)], lines, machine()) == ([], [])


def test_single_figures_and_rows_that_were_not_measured_are_named_and_do_not_fail(path):
    history.accept([one(5.0, runs=1), one(2.0, what="generation")], "c", "2026-01-01", path)
    fallen, apart = history.check([one(1.0, runs=1)], history.read(path), machine())
    assert not fallen
    assert apart == [
        "step, against eager, s: of fewer than 5 runs",
        "generation, against eager, s: was not measured",
    ]


def test_the_accepted_figures_are_whole():
    for line in history.read():
        assert set(line) == {
            *("date", "commit", "what", "ours", "peer", "unit", "against", "runs", "ratio", "machine"),
        }
        assert Row(**{k: line[k] for k in ("what", "ours", "peer", "unit", "against", "runs")}).ratio == pytest.approx(
            line["ratio"]
        )


def test_an_exponent_is_the_slope_of_the_logarithms():
    assert exponent([1, 2, 4], [3.0, 6.0, 12.0]) == pytest.approx(1.0)
    assert exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2.0)


def test_the_points_depart_from_one_along_one_axis_each():
    lines = list(points().values())
    middle = set(lines[0]).intersection(*lines[1:])
    assert len(middle) == 1
    for axis, line in enumerate(lines):
        for point in line:
            assert all(a == b for i, (a, b) in enumerate(zip(point, next(iter(middle)))) if i != axis)


def test_the_pipeline_s_rate_says_how_long_a_step_can_wait():
    alone, wait = pipeline_rows([1e6] * 5, 1e4)
    assert (alone.ratio, wait.ours, wait.ratio) == (100.0, 1.0, 1.0)
