"""The report over small synthetic workdirs, against numbers worked out by hand."""

import dataclasses
import re
from pathlib import Path

import pytest

from tests.stages.results import evaluate, experiment, spend, with_rules
from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json, read_jsonl, write_json, write_jsonl
from w2sr_jax.core.records import Prediction, RecordError
from w2sr_jax.grading.statistics import holm, wilson_interval
from w2sr_jax.stages import report


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(report, workdir) of the standard experiment."""
    root = tmp_path_factory.mktemp("experiment")
    return report.main(experiment(root), str(root / "report")), root / "report"


def test_the_report_holds_pass_at_1_with_the_intervals_of_the_results(done):
    found, workdir = done
    assert found == read_json(workdir / "report.json")
    row = found["arms"]["w2sr"]["micro"]
    assert row == {"pass_at_1": 0.5, "interval": list(wilson_interval(50, 100)), "n": 100, "k": 1, "stop_rate": 0.99}
    assert found["arms"]["w2sr"]["average"]["interval"] == row["interval"]
    assert (found["seed"], found["base"], found["ceiling"]) == (0, "base", "grpo")
    assert found["hygiene"]["w2sr"]["length_stop"] == 1
    assert found["hygiene"]["w2sr"]["responses"] == 100


def test_rgr_is_the_share_of_the_gap_with_an_interval_around_it(done):
    found, _ = done
    cell = found["rgr"]["w2sr"]["micro"]
    assert cell["value"] == pytest.approx((0.5 - 0.1) / (0.6 - 0.1))
    low, high = cell["interval"]
    assert low < 0.8 < high
    # Delta method: student and ceiling differ on 10 nested problems, so gain/gap = 1 - Binomial-ish(10)/50.
    assert high - low == pytest.approx(2 * 1.96 * (0.1 * 0.9 / 100) ** 0.5 / 0.5, rel=0.3)
    assert list(found["rgr"]) == ["w2sr"]


def test_a_baseline_is_shown_with_the_rgr_that_it_has_for_free_and_its_own_decoding(done):
    found, workdir = done
    assert found["baselines"]["forced"]["micro"]["rgr"]["value"] == pytest.approx(0.6)
    assert re.search(r"forced .*0\.60 \[.*\] for free", (workdir / "report.md").read_text())
    assert found["mixed"] == []


def test_claims_carry_the_paired_difference_and_a_verdict(done):
    found, _ = done
    claim = found["claims"]["students learn"]
    assert claim["difference"] == pytest.approx(0.4)
    # 40 of 100 problems differ, all in one direction: the interval of a share of 0.4
    half = 1.96 * (0.4 * 0.6 / 100) ** 0.5
    assert claim["interval"] == pytest.approx([0.4 - half, 0.4 + half], abs=0.03)
    assert claim["holds"] is True
    assert found["claims"]["upside down"]["holds"] is False


@pytest.mark.parametrize(("more", "p", "holds"), [(4, 0.125, "not shown"), (6, 0.03125, True)])
def test_a_difference_of_few_problems_has_to_pass_the_sign_test_too(tmp_path, more, p, holds):
    found = report.main(experiment(tmp_path, base=10, student=10 + more), str(tmp_path / "report"))
    claim = found["claims"]["students learn"]
    assert claim["p"] == pytest.approx(p)
    assert claim["holds"] == holds
    assert (claim["interval"][0] > 0) == (holds is True)


def test_few_problems_of_several_benchmarks_are_counted_together(tmp_path):
    config = experiment(tmp_path, base=10, student=13)
    for arm, right in {"base": 0, "forced": 8, "w2sr": 3, "grpo": 20}.items():
        config.arms[arm] += evaluate(tmp_path / f"second-{arm}", right, total=20, benchmark="hard")
    claim = report.main(config, str(tmp_path / "report"))["claims"]["students learn"]
    assert claim["p"] == pytest.approx(0.03125)
    assert claim["interval"][0] > 0


def test_the_cost_ratio_is_given_in_every_definition(done):
    found, _ = done
    assert found["ledger"]["ratios"]["w2sr"] == pytest.approx({
        "training": 40 / 2,
        "training_without_compilation": 38 / 1,
        "route": 40 / 10,
        "route_with_teacher": 40 / 20,
        "equal_accuracy": (6 + 4 * 3) / 10,  # validation reaches 0.5 at the fifth step; the first one compiled
        "training_flops": 20.0,
        "route_flops": 10.0,
        "route_flops_with_teacher": 5.0,
        "tokens_generated": 10.0,
        "tokens_generated_with_teacher": 2.5,
        "usd": None,
    })  # fmt: skip
    assert found["ledger"]["routes"]["w2sr"]["total"]["device_seconds"] == 10.0
    assert found["ledger"]["teacher"]["total"]["tokens_out"] == 300


def test_grpo_has_no_way_to_the_accuracy_of_a_student_that_is_not_shown_to_beat_the_base(tmp_path, capsys):
    config = experiment(tmp_path, base=10, student=11)
    found = report.main(config, str(tmp_path / "report"))
    assert found["ledger"]["ratios"]["w2sr"]["equal_accuracy"] is None
    assert "is not shown to beat the base" in capsys.readouterr().out
    assert "is not shown to beat the base" in (tmp_path / "report" / "report.html").read_text()


def test_the_teacher_is_charged_to_the_students_whom_it_taught(tmp_path):
    config = experiment(tmp_path)
    for arm in ("other", "made_of_its_traces"):
        config.arms[arm], config.routes[arm] = config.arms["w2sr"], config.routes["w2sr"]
    config.routes["it_made_itself"] = (*config.routes["w2sr"], *config.teacher_route)
    config.arms["it_made_itself"] = config.arms["w2sr"]
    config.teachers = {"w2sr": f"{config.teacher_route[0]}/export", "other": "Qwen/Qwen2.5-7B"}
    found = report.main(config, str(tmp_path / "report"))["ledger"]
    assert found["with_teacher"] == {"w2sr": 20.0, "made_of_its_traces": 20.0}
    by_definition = {arm: ratios["route_with_teacher"] for arm, ratios in found["ratios"].items()}
    assert by_definition == {"w2sr": 2.0, "other": None, "made_of_its_traces": 2.0, "it_made_itself": None}
    assert found["ratios"]["it_made_itself"]["route"] == 2.0
    assert found["ratios"]["other"]["tokens_generated_with_teacher"] is None


def test_the_page_is_self_contained_and_shows_plots_and_curves(done):
    _, workdir = done
    page = (workdir / "report.html").read_text()
    assert page.count("<svg") == 6  # arms, RGR, cost, SFT loss, GRPO reward, validation Pass@1
    assert "<script" not in page
    # Nothing is fetched: the only addresses are the names of XML namespaces.
    assert set(re.findall(r"https?://[^\"'<> ]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    links = set(re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", page))
    assert links
    assert all((workdir / link).is_file() for link in links)  # the tables beside it
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_names_and_responses_cannot_become_markup(tmp_path):
    evil = '<img src=x onerror=alert(1)>"&$x_1$'
    config = experiment(tmp_path)
    config.arms[evil] = evaluate(tmp_path / "evil", 30, response="</pre><script>alert(1)</script>")
    config.claims[f"{evil} is better | than base"] = (evil, "base")
    config.title = evil
    report.main(config, str(tmp_path / "report"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;/pre&gt;&lt;script&gt;" in page
    rows = [line for line in (tmp_path / "report" / "report.md").read_text().splitlines() if "is better" in line]
    assert rows[0].count(" | ") == 4  # five cells: a bar inside a claim does not split its own


def test_the_tables_are_printed_at_the_end(tmp_path, capsys):
    report.main(experiment(tmp_path), str(tmp_path / "report"))
    out = capsys.readouterr().out
    assert re.search(r"\| w2sr +\| 50\.0 \[40\.4, 59\.6\] +\| 0\.80 \[", out)
    assert re.search(r"students learn +\| w2sr > base +\| \+40\.0 \[.*\| holds", out)
    assert "| GRPO training / SFT training, FLOPs" in out


def test_accuracies_of_zero_leave_rgr_undefined_with_the_reason(tmp_path, capsys):
    config = experiment(tmp_path, base=0, student=0, ceiling=0, forced=0)
    found = report.main(config, str(tmp_path / "report"))
    reason = found["rgr"]["w2sr"]["average"]["undefined"]
    assert "'grpo' does not beat the base 'base' beyond noise: +0.000" in reason
    assert found["claims"]["students learn"]["holds"] == "not shown"
    assert reason in capsys.readouterr().out
    assert "undefined" in (tmp_path / "report" / "report.html").read_text()


def test_an_experiment_without_a_ceiling_still_has_its_report(tmp_path):
    config = experiment(tmp_path, base=0, student=1)
    del config.arms["grpo"], config.routes["grpo"]
    found = report.main(config, str(tmp_path / "report"))
    assert found["ceiling"] is None
    assert found["rgr"]["w2sr"]["micro"] == {"undefined": "no arm is the ceiling (GRPO)"}
    assert found["ledger"]["ratios"] == {}
    assert "no arm is the ceiling" in (tmp_path / "report" / "report.html").read_text()
    config.ceiling = "grop"
    with pytest.raises(UsageError, match=r"config.ceiling: 'grop' is not among config.arms"):
        report.main(config, str(tmp_path / "report"))


def test_the_config_file_of_the_readme_compares_the_arms_that_its_commands_made(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (file,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "rgr.py").write_text(file)
    monkeypatch.chdir(tmp_path)
    for name, right in (("eval_base", 10), ("eval", 50), ("eval_ceiling", 60)):
        evaluate(Path("runs") / name, right, benchmark="math500")
    for name, stage in (("traces", "distill"), ("filtered", "filter"), ("student", "sft"), ("ceiling", "grpo")):
        spend(Path("runs") / name, stage, 2.0)
    found = report.main(load_config_file("rgr.py"), "runs/report")
    assert found["rgr"]["w2sr_p"]["math500"]["value"] == pytest.approx(0.8)
    assert found["ledger"]["ratios"]["w2sr_p"]
    assert Path("runs/report/report.html").exists()


def test_a_gap_within_noise_leaves_rgr_undefined(tmp_path):
    config = experiment(tmp_path, base=50, student=52, ceiling=52)
    config.arms["grpo"] = evaluate(tmp_path / "e-grpo", 52, shift=37)  # other problems are right
    assert "undefined" in report.main(config, str(tmp_path / "report"))["rgr"]["w2sr"]["micro"]


def test_the_average_is_over_benchmarks_with_equal_weight(tmp_path):
    config = experiment(tmp_path)
    second = {"base": 0, "forced": 8, "w2sr": 10, "grpo": 20}
    for arm, right in second.items():
        config.arms[arm] += evaluate(tmp_path / f"second-{arm}", right, total=20, benchmark="hard")
    found = report.main(config, str(tmp_path / "report"))
    assert found["arms"]["w2sr"]["average"]["pass_at_1"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["rgr"]["w2sr"]["hard"]["value"] == pytest.approx(0.5)
    assert found["rgr"]["w2sr"]["average"]["value"] == pytest.approx((0.5 - 0.05) / (0.8 - 0.05))
    assert found["ledger"]["ratios"]["w2sr"]["equal_accuracy"] is None
    assert "## Pass@1, %" in (tmp_path / "report" / "report.md").read_text()


def test_mixed_decoding_is_refused_with_keys_and_arms_unless_allowed(tmp_path):
    config = experiment(tmp_path)
    config.arms["grpo"] = evaluate(tmp_path / "e-grpo", 60, decoding={"temperature": 1.0, "top_p": 0.95})
    with pytest.raises(W2SRError, match=r"'base' / 'grpo' differ in temperature \(0\.0 / 1\.0\), top_p") as error:
        report.main(config, str(tmp_path / "report"))
    assert "\n" not in str(error.value)
    config.allow_mixed_decoding = True
    assert "temperature" in report.main(config, str(tmp_path / "report"))["mixed"][0]
    assert "protocols are mixed" in (tmp_path / "report" / "report.md").read_text()


def test_a_baseline_on_other_problems_is_refused(tmp_path):
    config = experiment(tmp_path)
    config.arms["forced"] = evaluate(tmp_path / "e-forced", 40, decoding={"problems_sha256": "cd"})
    with pytest.raises(W2SRError, match="'base' / 'forced' differ in problems_sha256"):
        report.main(config, str(tmp_path / "report"))


def test_arms_that_answered_other_problems_are_named(tmp_path):
    config = experiment(tmp_path)
    config.arms["w2sr"] = evaluate(tmp_path / "e-w2sr", 50, total=99)
    with pytest.raises(W2SRError, match="'base' and 'w2sr' did not answer the same problems: 1 differ, 'p99' first"):
        report.main(config, str(tmp_path / "report"))


def test_predictions_that_disagree_with_their_result_are_refused(tmp_path):
    config = experiment(tmp_path)
    path = tmp_path / "e-w2sr" / "predictions.jsonl"
    write_jsonl(path, read_jsonl(path, Prediction)[:90])
    with pytest.raises(RecordError, match=r"result.json: pass_at_1: is 0.5, but predictions.jsonl gives 0.55"):
        report.main(config, str(tmp_path / "report"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nobody"}, r"config.base: 'nobody' is not among config.arms \(base, forced, w2sr, grpo\)"),
        ({"claims": {"x": ("w2sr", "nobody")}}, r"config.claims\['x'\]: 'nobody' is not among"),
        ({"baselines": ("grpo",)}, "config.baselines: base and ceiling are arms of their own"),
        ({"reports": ("somewhere",)}, r"config.arms, .reports, .rows, .sections, .traces: set one of the five"),
    ],
)
def test_a_wrong_name_in_the_config_is_one_line(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        report.main(dataclasses.replace(experiment(tmp_path), **changes), str(tmp_path / "report"))


def test_a_result_without_a_field_is_named(tmp_path):
    config = experiment(tmp_path)
    result = read_json(tmp_path / "e-base" / "result.json")
    del result["stop_rate"]
    write_json(tmp_path / "e-base" / "result.json", result)
    with pytest.raises(RecordError, match=r"result\.json: stop_rate: missing"):
        report.main(config, str(tmp_path / "report"))


def test_scores_by_other_rules_stand_beside_the_one_that_counts(tmp_path, capsys):
    config = experiment(tmp_path)
    for arm in ("base", "forced", "w2sr", "grpo"):
        with_rules(tmp_path / f"e-{arm}", 0.52, 0.44)
    found = report.main(config, str(tmp_path / "report"))
    assert found["scoring"]["w2sr"]["micro"] == {
        "main": 0.5,
        "second": 0.52,
        "first_box": 0.44,
        "last_box": 0.5,
        "stop_at_box": 0.44,
        "disagreements": {"main_only": 1, "second_only": 3},
    }
    text = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"\| w2sr +\| micro +\| 50.0 \[40.4, 59.6\] +\| 52.0 \[.*\| 44.0 \[.*\| 1 +\| 3 ", text)
    assert "Scoring rules" in (tmp_path / "report" / "report.html").read_text()


def test_old_results_without_other_rules_still_make_a_report(done):
    found, workdir = done
    assert found["scoring"]["w2sr"] == {}
    assert "Scoring rules" not in (workdir / "report.html").read_text()


def test_results_under_different_protocols_are_refused(tmp_path):
    config = experiment(tmp_path)
    stops = {"protocol": "simplerl", "stop_strings": ["</s>"]}
    evaluate(tmp_path / "e-w2sr", 50, decoding=stops)
    with pytest.raises(W2SRError, match=r"'base' / 'w2sr' differ in protocol \(None / 'simplerl'\), stop_strings"):
        report.main(config, str(tmp_path / "report"))


def test_claims_are_corrected_for_their_number(done):
    found, workdir = done
    many = found["claims"]
    assert [claim["p_holm"] for claim in many.values()] == holm([claim["p"] for claim in many.values()])
    assert many["students learn"]["survives"] is True
    text = (workdir / "report.md").read_text()
    assert f"These are {len(many)} claims at 95 % each" in text
    assert "p (Holm)" in text
    assert "p (Holm)" in (workdir / "report.html").read_text()


def test_sizes_are_read_from_a_name_where_there_is_no_model():
    assert report.parameters("Qwen/Qwen2.5-Math-7B") == 7e9
    assert report.parameters("hkust-nlp/Qwen-2.5-0.5B-SimpleRL-Zoo") == 5e8
    assert report.parameters("meta-llama/Llama-3.1-8B") == 8e9
    assert report.parameters("SmolLM2-135M-Instruct") == 1.35e8
    assert report.parameters("some/model") is None


def test_the_page_puts_verified_figures_of_the_paper_beside_its_own(done):
    _, workdir = done
    text = (workdir / "tables" / "paper.csv").read_text()
    assert '"RGR, W2SR",about 94 % at best,"0.80 [' in text
    assert "25x" not in text  # there is no W2SR-P
