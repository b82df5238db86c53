"""The trace lab in a report: of any traces, and beside the students that learned from them."""

import dataclasses

import pytest

from tests.stages.results import evaluate, experiment
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_json, write_jsonl
from w2sr_jax.core.records import GradedTrace, Problem
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.reporting import sizes
from w2sr_jax.stages import report


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


def test_a_path_may_have_dots_and_equals_signs(tmp_path):
    paths = [tmp_path / "qwen2.5-1.5b", tmp_path / "qwen2.5-7b", tmp_path / "lr=1e-5"]
    for path in paths:
        path.mkdir()
    found = report.named_sets((*map(str, paths), f"high={tmp_path}/lr=1e-5", "."))
    assert list(found) == ["qwen2.5-1.5b", "qwen2.5-7b", "lr=1e-5", "high", "."]
    assert list(found.values()) == [*map(str, paths), str(paths[-1]), "."]
