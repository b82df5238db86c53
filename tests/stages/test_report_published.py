"""The report on published rows and a student's, without any workdir."""

import dataclasses

import pytest

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import read_json
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.grading.statistics import wilson_interval
from w2sr_jax.stages import report


def published(**changes):
    """Published rows of two benchmarks, and a student."""
    config = ReportConfig(
        rows={"base": (60.0, 3.3), "rl": (80.0, 20.0)},
        row_problems={"math500": 500, "aime24": 30},
        student_row=(72.0, 10.0),
        row_notes=("As published somewhere.",),
        ceiling="rl",
        bootstrap=2000,
    )
    return dataclasses.replace(config, **changes)


def test_published_rows_and_a_student_s_make_an_rgr_table(tmp_path, capsys):
    found = report.main(published(), str(tmp_path))
    assert found == read_json(tmp_path / "report.json")
    cell = found["rgr"]["student"]["math500"]
    assert cell["value"] == pytest.approx(12 / 20)
    # Delta method on independent binomials: var = (var_s + (1-r)^2 var_b + r^2 var_c) / gap^2
    variances = [p * (1 - p) / 500 for p in (0.72, 0.60, 0.80)]
    half = 1.96 * (variances[0] + 0.16 * variances[1] + 0.36 * variances[2]) ** 0.5 / 0.2
    low, high = cell["interval"]
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.08)
    assert found["arms"]["base"]["math500"]["interval"] == list(wilson_interval(300, 500))
    assert found["arms"]["rl"]["average"]["pass_at_1"] == pytest.approx(0.5)
    text = capsys.readouterr().out
    assert "RGR on aime24 is undefined: the ceiling 'rl' does not beat the base 'base' beyond noise: +0.167" in text
    assert "As published somewhere." in text
    assert "stopped" not in text
    page = (tmp_path / "report.html").read_text()
    assert "undefined" in page
    assert "Response hygiene" not in page


def test_published_rows_alone_make_a_report_too(tmp_path, capsys):
    found = report.main(published(student_row=()), str(tmp_path))
    assert (list(found["arms"]), found["rgr"]) == (["base", "rl"], {})
    assert (tmp_path / "report.html").exists()


def test_a_score_of_0_still_has_an_interval_and_no_rgr(tmp_path, capsys):
    config = published(rows={"base": (60.0, 0.0), "rl": (80.0, 0.0)}, student_row=(70.0, 0.0))
    found = report.main(config, str(tmp_path))
    assert "undefined" in found["rgr"]["student"]["aime24"]
    assert found["arms"]["rl"]["aime24"]["interval"][1] > 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student_row": (1.0,)},
            r"config.student_row: expected Pass@1 in % for each of math500, aime24, got \(1.0,\)",
        ),
        ({"student_row": (1.0, 101.0)}, r"config.student_row: expected Pass@1 in %"),
        ({"rows": {"base": (1.0,), "rl": (1.0, 2.0)}}, r"config.rows.base: expected Pass@1 in %"),
        ({"ceiling": "grpo"}, r"config.ceiling: 'grpo' is not among config.rows \(base, rl\)"),
        ({"reports": ("somewhere",)}, "set one of the five"),
        (
            {"rows": {"base": (1.0, 2.0), "rl": (2.0, 3.0), "student": (1.0, 1.0)}},
            "config.student_row: config.rows has a row named 'student' already",
        ),
    ],
)
def test_wrong_rows_are_one_line(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        report.main(published(**changes), str(tmp_path))
