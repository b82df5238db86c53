"""The report over small synthetic workdirs, against numbers worked out by hand."""

import dataclasses
import json
import re

import numpy as np
import pytest

from w2sr_jax.core.cost import LedgerLine, append_ledger
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json, read_jsonl, write_json, write_jsonl
from w2sr_jax.core.records import GradedTrace, Prediction, Problem, RecordError
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.grading.statistics import holm, wilson_interval
from w2sr_jax.reporting import sizes
from w2sr_jax.stages import report

DECODING = {
    "template": "plain",
    "response_prefix": "",
    "max_tokens": 64,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "n": 1,
    "stop_token_ids": [3],
    "dtype": "float32",
    "engine": "jax",
    "problems_sha256": "ab",
}


def evaluate(workdir, right, total=100, benchmark="micro", response="so 4", decoding=None, shift=0):
    """An evaluate workdir in which `right` of `total` problems, the first ones after `shift`, are right."""
    oks = np.roll(np.arange(total) < right, shift)
    predictions = [
        Prediction(
            benchmark=benchmark,
            problem_id=f"p{i}",
            sample=0,
            response=response,
            response_tokens=9,
            finish_reason="length" if i == 0 else "stop",
            extracted="4" if ok else None,
            correct=bool(ok),
            hygiene=["length_stop"] if i == 0 else [],
        )
        for i, ok in enumerate(oks)
    ]
    write_jsonl(workdir / "predictions.jsonl", predictions)
    result = {"benchmark": benchmark, "n": total, "k": 1, "pass_at_1": right / total}
    result |= {"interval": list(wilson_interval(right, total)), "stop_rate": 1 - 1 / total, "grader": "g1"}
    write_json(workdir / "result.json", result | {"decoding": DECODING | (decoding or {})})
    return (str(workdir),)


def spend(workdir, stage, seconds, compile_seconds=0.0, tokens_out=0, flops=0.0, usd=None):
    line = LedgerLine(
        stage=stage,
        name=workdir.name,
        device_kind="cpu",
        device_count=1,
        seconds=seconds,
        device_seconds=seconds,
        compile_seconds=compile_seconds,
        tokens_in=0,
        tokens_out=tokens_out,
        flops=flops,
        usd=usd,
    )
    append_ledger(workdir, line)
    return str(workdir)


def experiment(root, base=10, student=50, ceiling=60, forced=40, seed=0):
    """The config of a whole small experiment."""
    arms = {
        "base": evaluate(root / "e-base", base),
        "forced": evaluate(root / "e-forced", forced, decoding={"response_prefix": "T"}),
        "w2sr": evaluate(root / "e-w2sr", student),
        "grpo": evaluate(root / "e-grpo", ceiling),
    }
    distill = spend(root / "distill", "distill", 8.0, tokens_out=100, flops=1e9)
    sft = spend(root / "sft", "sft", 2.0, compile_seconds=1.0, flops=1e9)
    grpo = spend(root / "grpo", "grpo", 40.0, compile_seconds=2.0, tokens_out=1000, flops=2e10)
    teacher = spend(root / "teacher", "grpo", 10.0, tokens_out=300, flops=2e9)
    (root / "sft" / "metrics.jsonl").write_text('{"step": 0, "time": 1.0, "loss": 2.0}\n{"step": 1, "loss": null}\n')
    rows = [{"step": i, "reward": 0.1 * i, "validation/pass_at_1": 0.1 + 0.1 * i} for i in range(10)]
    (root / "grpo" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ReportConfig(
        arms=arms,
        baselines=("forced",),
        routes={"w2sr": (distill, sft), "grpo": (grpo,)},
        teacher_route=(teacher,),
        claims={"students learn": ("w2sr", "base"), "upside down": ("base", "w2sr")},
        bootstrap=500,
        seed=seed,
    )


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


def test_the_cost_ratio_is_given_in_every_definition(done):
    found, _ = done
    assert found["ledger"]["ratios"]["w2sr"] == pytest.approx({
        "training": 40 / 2,
        "training_without_compilation": 38 / 1,
        "route": 40 / 10,
        "route_with_teacher": 40 / 20,
        "equal_accuracy": 40 * 5 / 10 / 10,  # validation reaches 0.5 at the fifth of ten steps
        "training_flops": 20.0,
        "route_flops": 10.0,
        "route_flops_with_teacher": 5.0,
        "tokens_generated": 10.0,
        "tokens_generated_with_teacher": 2.5,
        "usd": None,
    })  # fmt: skip
    assert found["ledger"]["routes"]["w2sr"]["total"]["device_seconds"] == 10.0
    assert found["ledger"]["teacher"]["total"]["tokens_out"] == 300


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


def seeds(root, students=(50, 54, 46), numbers=(0, 1, 2)):
    for number, student in zip(numbers, students, strict=True):
        place = root / f"s{student}"
        report.main(experiment(place, student=student, seed=number, base=10, ceiling=60), str(place / "report"))
    return tuple(str(root / f"s{student}" / "report") for student in students)


def test_a_summary_gives_mean_sd_and_rgr_over_seeds(tmp_path, capsys):
    config = ReportConfig(reports=seeds(tmp_path), title="Three seeds")
    found = report.main(config, str(tmp_path / "summary"))
    row = found["arms"]["w2sr"]["micro"]
    assert (row["pass_at_1"], row["sd"]) == pytest.approx((0.5, 0.04))
    assert row["per_seed"] == [0.50, 0.54, 0.46]
    # t(.975, 2) = 4.302653; the gap is 0.5 in every seed, so Fieller's interval is the t interval over it.
    half = 4.302653 * 0.04 / 3**0.5
    assert row["interval"] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)
    cell = found["rgr"]["w2sr"]["micro"]
    assert cell["value"] == pytest.approx(0.8)
    assert cell["interval"] == pytest.approx([(0.4 - half) / 0.5, (0.4 + half) / 0.5], abs=1e-6)
    assert cell["per_seed"] == pytest.approx([0.8, 0.88, 0.72])
    assert found["baselines"]["forced"]["micro"]["rgr"]["value"] == pytest.approx(0.6)
    claim = found["claims"]["students learn"]
    assert (claim["seeds_holding"], claim["seeds"], claim["holds"]) == (3, 3, True)
    assert found["ledger"]["ratios"]["w2sr"]["route"] == pytest.approx(4.0)
    assert found["ledger"]["ratio_ranges"]["w2sr"]["equal_accuracy"] == pytest.approx([2.0, 2.4])
    assert "holds (3 of 3 seeds alone)" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "summary" / "report.html").read_text()


def test_a_summary_refuses_a_seed_twice_and_a_single_seed(tmp_path):
    reports = seeds(tmp_path, students=(50, 54), numbers=(7, 7))
    with pytest.raises(UsageError, match=r"config.reports: seed 7 occurs twice"):
        report.main(ReportConfig(reports=reports), str(tmp_path / "summary"))
    with pytest.raises(UsageError, match="at least two seeds"):
        report.main(ReportConfig(reports=reports[:1]), str(tmp_path / "summary"))


def with_rules(workdir, second, first_box):
    """Adds what evaluate says of the other scoring rules to a result."""
    result = read_json(workdir / "result.json")
    main = result["pass_at_1"]
    result["second_grader"] = {"grader": "g2", "pass_at_1": second, "main_only": 1, "second_only": 3}
    result["box_rules"] = {"first_box": first_box, "last_box": main, "stop_at_box": first_box}
    write_json(workdir / "result.json", result)


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


def test_results_under_different_protocols_are_refused(tmp_path):
    config = experiment(tmp_path)
    stops = {"protocol": "simplerl", "stop_strings": ["</s>"]}
    evaluate(tmp_path / "e-w2sr", 50, decoding=stops)
    with pytest.raises(W2SRError, match=r"'base' / 'w2sr' differ in protocol \(None / 'simplerl'\), stop_strings"):
        report.main(config, str(tmp_path / "report"))


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


def lab_traces(path, right, total=40):
    rows = [
        GradedTrace(
            problem_id=f"p{i}",
            sample=0,
            response=f"Wait, {i}+1={i + 1}. So \\boxed{{{i + 1}}}",
            response_tokens=10 + i % 7,
            finish_reason="stop",
            teacher="t",
            extracted=str(i + 1),
            correct=i < right,
            grader="g",
            hygiene=[],
        )
        for i in range(total)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)
    return str(path)


def test_the_trace_lab_of_any_traces_is_a_report_of_its_own(tmp_path, capsys):
    problems = [Problem(id=f"p{i}", problem=f"{i}+1", answer=str(i + 1), level=str(i % 2)) for i in range(40)]
    write_jsonl(tmp_path / "problems.jsonl", problems)
    lab_traces(tmp_path / "filtered" / "all.jsonl", 10)
    sets = [str(tmp_path / "filtered")] + [f"set {i}={lab_traces(tmp_path / f'{i}.jsonl', 5 * i)}" for i in range(1, 7)]
    students = tuple(evaluate(tmp_path / f"e{i}", 10 + 10 * i)[0] for i in range(7))
    config = ReportConfig(title="Lab", traces=tuple(sets), students=students, problems=str(tmp_path / "problems.jsonl"))
    found = report.main(config, str(tmp_path / "lab"))
    assert found == read_json(tmp_path / "lab" / "report.json")
    lab = found["trace_lab"]
    assert list(lab["sets"]) == ["filtered", *(f"set {i}" for i in range(1, 7))]
    assert lab["sets"]["filtered"]["by_level"] == {"0": [5, 20], "1": [5, 20]}
    assert lab["gains"]["filtered"]["value"] == pytest.approx(0.1)
    assert lab["go_with"]["right, %"]["sets"] == 7
    assert lab["go_with"]["right, %"]["rho"] > 0.9
    assert lab["go_with"]["tokens"] == {"constant": pytest.approx(12.875)}
    page = (tmp_path / "lab" / "report.html").read_text()
    assert "Right answers by length" in page
    assert "No perplexity" in page
    assert (tmp_path / "lab" / "tables" / "traces-gain.csv").exists()
    assert "| filtered |" in capsys.readouterr().out


def test_trace_sets_beside_arms_say_what_students_gained(tmp_path):
    config = experiment(tmp_path)
    config.trace_sets = {"w2sr": lab_traces(tmp_path / "all.jsonl", 20)}
    found = report.main(config, str(tmp_path / "report"))
    gain = found["trace_lab"]["gains"]["w2sr"]
    assert gain["value"] == pytest.approx(0.4)
    assert gain["interval"][0] < 0.4 < gain["interval"][1]
    assert found["trace_lab"]["go_with"]["right, %"] == {"too_few": 1}
    assert "Too few to say" in (tmp_path / "report" / "report.html").read_text()


def test_what_each_student_learned_from_is_in_the_table_and_unequal_sizes_are_named(tmp_path):
    config = experiment(tmp_path)
    config.trace_sets = {"w2sr": lab_traces(tmp_path / "a.jsonl", 20), "grpo": lab_traces(tmp_path / "b.jsonl", 5, 30)}
    config.trace_sets["nobody learned from it"] = lab_traces(tmp_path / "c.jsonl", 5, 20)
    found = report.main(config, str(tmp_path / "report"))
    assert found["trace_sizes"] == {"w2sr": [[40, 40]], "grpo": [[30, 30]]}
    text = (tmp_path / "report" / "report.md").read_text()
    assert "traces (problems)" in text
    assert "40 (40)" in text
    assert "not learn from equally many traces: grpo from 30, the others from 40." in text
    seeds = sizes.of_seeds([{"trace_sizes": {"a": [[400, 398]]}}, {"trace_sizes": {"a": [[296, 290]], "b": [[1, 1]]}}])
    assert seeds == {"a": [[400, 398], [296, 290]]}
    assert sizes.cell(seeds["a"]) == "296 to 400 (290 to 398)"
    assert sizes.unequal(seeds) == sizes.unequal({}) == ""


def test_claims_are_corrected_for_their_number(done):
    found, workdir = done
    many = found["claims"]
    assert [claim["p_holm"] for claim in many.values()] == holm([claim["p"] for claim in many.values()])
    assert many["students learn"]["survives"] is True
    text = (workdir / "report.md").read_text()
    assert f"These are {len(many)} claims at 95 % each" in text
    assert "p (Holm)" in text
    assert "p (Holm)" in (workdir / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": ("a", "b")}, "config.students: 2 for 1 of config.traces"),
        ({"score_model": "x"}, "config.problems: config.score_model needs the problems"),
        ({"traces": ("a=x", "a=y")}, "config.traces: two sets are called 'a'; write NAME=PATH"),
        ({"traces": ("nowhere",)}, "nowhere: neither a trace file nor the workdir"),
    ],
)
def test_a_wrong_lab_config_is_one_line(tmp_path, changes, message):
    with pytest.raises(W2SRError, match=message):
        report.main(dataclasses.replace(ReportConfig(traces=("t",)), **changes), str(tmp_path))


def test_sets_without_a_name_are_told_apart_by_their_paths():
    found = report.named_sets(("a/filter/all.jsonl", "b/filter/all.jsonl", "b/filter/correct.jsonl", "x=c"))
    assert list(found) == ["all", "filter/all", "correct", "x"]


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
