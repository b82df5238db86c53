"""What `make bench-check` holds a run against, and the exponents of the table. No wall time."""

import subprocess

import pytest

from benchmarks import history
from benchmarks.pipeline import pipeline_rows
from benchmarks.scaling import exponent, points
from w2sr_jax.core.revision import is_dirty
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
    assert history.check([one(1.81)], lines, machine()) == history.Verdict({"eager"}, [], [])
    found = history.check([one(1.79)], lines, machine())
    assert found.fallen == ["step, against eager, s: 1.79, was 2.00 at new"]


def test_another_machine_s_figures_do_not_count(path):
    history.accept([one(5.0)], "c", "2026-01-01", path)
    lines = [line | {"machine": "another"} for line in history.read(path)]
    found = history.check([one(1.0)], lines, machine())
    assert (found.compared, found.fallen) == (set(), [])
    assert found.apart == ["step, against eager, s: has no accepted figure of this machine"]


def test_a_peer_that_was_left_out_is_absent_where_history_has_it_of_this_machine(path):
    history.accept([one(2.0)], "c", "2026-01-01", path)
    missing = {"eager": "torch is not installed", "vLLM": "vllm is not installed"}
    assert history.absent(missing, history.read(path), machine()) == ["eager: torch is not installed"]
    assert history.absent(missing, history.read(path), "another") == []


def test_peak_memory_is_checked_though_it_is_one_figure(path):
    history.accept([one(2.0, what="peak memory, w", runs=1)], "c", "2026-01-01", path)
    lines = history.read(path)
    assert history.check([one(1.81, what="peak memory, w", runs=1)], lines, machine()).fallen == []
    assert len(history.check([one(1.79, what="peak memory, w", runs=1)], lines, machine()).fallen) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"same": False}, "parity failed"),
        ({"fallen": ["step"]}, "1 ratios fell"),
        ({"dirty": True}, "commit it first"),
        ({"commit": None}, "commit it first"),
        ({"others": 0.06}, "other processes took 6 % of the processor time, more than 5 %"),
        ({"others": None}, "nobody knows what share"),
    ],
)
def test_what_is_not_worth_keeping_is_not_accepted(changes, reason):
    good = {"same": True, "fallen": [], "dirty": False, "commit": "c", "others": 0.01}
    found = history.refusal(**(good | changes))
    assert (found is None) if reason is None else (reason in found)


def test_code_that_differs_from_its_commit_is_dirty_and_accepted_figures_are_no_code(tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path, check=True)

    assert is_dirty(tmp_path)  # no checkout
    (tmp_path / "benchmarks").mkdir()
    for name in ("code.py", "history.jsonl"):
        (tmp_path / "benchmarks" / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    (tmp_path / "benchmarks" / "history.jsonl").write_text("2")
    (tmp_path / "notes").write_text("not code")
    assert not is_dirty(tmp_path)
    (tmp_path / "benchmarks" / "code.py").write_text("2")
    assert is_dirty(tmp_path)


def test_single_figures_and_rows_that_were_not_measured_are_named_and_do_not_fail(path):
    history.accept([one(5.0, runs=1), one(2.0, what="generation")], "c", "2026-01-01", path)
    found = history.check([one(1.0, runs=1)], history.read(path), machine())
    assert (found.compared, found.fallen) == (set(), [])
    assert found.apart == [
        "generation, against eager, s: was not measured",
        "step, against eager, s: of fewer than 5 runs",
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
    alone, wait = pipeline_rows([1e6] * 5, 1e4, "7.0M parameters")
    assert alone.what == "input pipeline alone, 7.0M parameters"
    assert (alone.ratio, wait.ours, wait.ratio) == (100.0, 1.0, 1.0)
