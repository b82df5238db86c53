"""A report over the reports of several seeds."""

import re

import pytest

from tests.stages.results import evaluate, experiment, seeds, with_rules
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import read_json, write_json
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.grading.statistics import wilson_interval
from w2sr_jax.reporting import summary, tables
from w2sr_jax.stages import report


def test_a_summary_gives_mean_sd_and_rgr_over_seeds(tmp_path, capsys):
    config = ReportConfig(reports=seeds(tmp_path), title="Three seeds")
    found = report.main(config, str(tmp_path / "summary"))
    row = found["arms"]["w2sr"]["micro"]
    assert (row["pass_at_1"], row["sd"]) == pytest.approx((0.5, 0.04))
    assert row["per_seed"] == [0.50, 0.54, 0.46]
    # t(.975, 2) = 4.302653; the problems' own error is larger than that over seeds: (0.5 x 0.5 / 100 / 3)^0.5.
    half = 4.302653 * (0.25 / 100 / 3) ** 0.5
    assert row["interval"] == pytest.approx([0.5 - half, 0.5 + half], abs=0.004)
    cell = found["rgr"]["w2sr"]["micro"]
    assert cell["value"] == pytest.approx(0.8)
    # The gap is 0.5 in every seed, so Fieller's interval over seeds is the t interval over it.
    half = 4.302653 * 0.04 / 3**0.5
    assert cell["interval"] == pytest.approx([(0.4 - half) / 0.5, (0.4 + half) / 0.5], abs=1e-6)
    assert cell["per_seed"] == pytest.approx([0.8, 0.88, 0.72])
    assert found["baselines"]["forced"]["micro"]["rgr"]["value"] == pytest.approx(0.6)
    claim = found["claims"]["students learn"]
    assert (claim["seeds_holding"], claim["seeds"], claim["holds"]) == (3, 3, True)
    assert found["ledger"]["ratios"]["w2sr"]["route"] == pytest.approx(4.0)
    assert found["ledger"]["ratio_ranges"]["w2sr"]["equal_accuracy"] == pytest.approx([1.8, 2.1])
    assert found["ledger"]["with_teacher"]["w2sr"] == pytest.approx(20.0)
    assert "holds (3 of 3 seeds alone)" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "summary" / "report.html").read_text()


def test_a_problem_that_all_seeds_were_asked_counts_once(tmp_path, capsys):
    found, _ = alike(tmp_path)
    assert found["arms"]["w2sr"]["micro"]["n"] == 100
    text, page = (tmp_path / "all" / "report.md").read_text(), (tmp_path / "all" / "report.html").read_text()
    assert "micro (n=100 a seed), seeds 0, 1, 2" in text
    assert "micro (100 problems a seed)" in page
    low, high = (100 * end for end in wilson_interval(99, 100))
    assert len(re.findall(rf"99\.0 \[{low:.1f}, {high:.1f}\]", text)) == 4  # stopped, of each arm
    low, high = (100 * end for end in wilson_interval(1, 100))
    assert re.search(rf"\| w2sr +\| 300 .*1\.0 \[{low:.1f}, {high:.1f}\]", text)  # length stops


def test_a_ratio_that_one_seed_does_not_have_has_no_mean(tmp_path, capsys):
    places = seeds(tmp_path)
    other = read_json(tmp_path / "s46" / "report" / "report.json")
    other["ledger"]["ratios"]["w2sr"]["equal_accuracy"] = None
    write_json(tmp_path / "s46" / "report" / "report.json", other)
    found = report.main(ReportConfig(reports=places), str(tmp_path / "summary"))
    assert found["ledger"]["ratios"]["w2sr"]["equal_accuracy"] is None
    assert tables.ratio(found["ledger"], "w2sr", "equal_accuracy") == "-"
    assert found["ledger"]["ratios"]["w2sr"]["route"] == pytest.approx(4.0)


def test_seeds_of_different_benchmarks_are_refused_even_where_decoding_may_differ(tmp_path):
    places = seeds(tmp_path, students=(50, 54), numbers=(0, 1))
    config = experiment(tmp_path / "s54", student=54, seed=1)
    for arm in config.arms:
        config.arms[arm] += evaluate(tmp_path / f"second-{arm}", 8, total=20, benchmark="hard")
    report.main(config, places[1])
    with pytest.raises(UsageError, match="differ in benchmarks: 'hard'"):
        report.main(ReportConfig(reports=places, allow_mixed_decoding=True), str(tmp_path / "summary"))


def test_a_summary_refuses_a_seed_twice_and_a_single_seed(tmp_path):
    reports = seeds(tmp_path, students=(50, 54), numbers=(7, 7))
    with pytest.raises(UsageError, match=r"config.reports: seed 7 occurs twice"):
        report.main(ReportConfig(reports=reports), str(tmp_path / "summary"))
    with pytest.raises(UsageError, match="at least two seeds"):
        report.main(ReportConfig(reports=reports[:1]), str(tmp_path / "summary"))


def test_a_summary_averages_the_other_rules_over_seeds(tmp_path, capsys):
    places = []
    for seed, second in ((0, 0.52), (1, 0.56)):
        config = experiment(tmp_path / str(seed), seed=seed)
        for arm in ("base", "forced", "w2sr", "grpo"):
            with_rules(tmp_path / str(seed) / f"e-{arm}", second, 0.44)
        report.main(config, str(tmp_path / str(seed) / "report"))
        places.append(str(tmp_path / str(seed) / "report"))
    found = report.main(ReportConfig(reports=tuple(places)), str(tmp_path / "summary"))
    row = found["scoring"]["w2sr"]["micro"]
    assert row["second"] == pytest.approx(0.54)
    assert row["disagreements"] == {"main_only": 2, "second_only": 6}


def alike(root, **scores):
    """The summary over three seeds that are the same."""
    places = [root / str(seed) for seed in range(3)]
    for seed, place in enumerate(places):
        report.main(experiment(place, seed=seed, **scores), str(place / "report"))
    config = ReportConfig(reports=tuple(str(place / "report") for place in places))
    return report.main(config, str(root / "all")), config


def test_rgr_over_seeds_that_came_out_alike_has_no_less_than_the_sampling_error_of_the_problems(tmp_path):
    found, config = alike(tmp_path)
    low, high = found["rgr"]["w2sr"]["micro"]["interval"]
    # The student misses 10 of the ceiling's 50 more: of 1 - missed / gap each seed has the error of one experiment.
    half = 4.302653 * (0.1 * 0.9 / 100 / 3) ** 0.5 / 0.5
    assert high - low == pytest.approx(2 * half, rel=0.3)
    assert found["arms"]["w2sr"]["micro"]["interval"][1] - 0.5 > 0.1
    # A report of old does not tell how its arms went together.
    reports = summary.load_reports(config)
    for one in reports:
        del one["rgr"]["w2sr"]["micro"]["sampling"]
    low_of_old, high_of_old = summary.summarise(config, reports)["rgr"]["w2sr"]["micro"]["interval"]
    assert low_of_old < low < high < high_of_old


def test_a_gap_that_seeds_agree_on_by_chance_leaves_rgr_undefined(tmp_path):
    found, _ = alike(tmp_path, base=10, student=50, ceiling=12)
    assert "does not beat the base 'base' beyond noise: +0.020" in found["rgr"]["w2sr"]["micro"]["undefined"]
    assert found["baselines"]["forced"]["micro"]["rgr"].keys() == {"undefined", "per_seed"}


def test_seeds_that_came_out_alike_by_chance_are_held_against_the_sampling_error_of_their_problems(tmp_path):
    found, _ = alike(tmp_path, student=12)
    claim = found["claims"]["students learn"]
    assert claim["difference"] == pytest.approx(0.02)
    # A seed's difference of 2 in 100 pairs has a standard error of (0.02 x 0.98 / 100)^0.5, the mean of three less.
    half = 4.302653 * (0.02 * 0.98 / 100 / 3) ** 0.5
    assert claim["interval"] == pytest.approx([0.02 - half, 0.02 + half], abs=0.006)
    assert (claim["holds"], claim["survives"]) == ("not shown", False)
    assert claim["p"] > 0.05
