"""The filter stage: subsets, counts, gates, matched sizes, and its one-line errors."""

import json

import pytest

from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json, read_jsonl, sha256_file, write_jsonl
from w2sr_jax.core.records import GradedTrace, Overlap, Problem, Trace
from w2sr_jax.core.trace_config import HYGIENE_FLAGS, FilterConfig
from w2sr_jax.grading.grade import GRADER_VERSION
from w2sr_jax.stages import filter as stage

OUTPUTS = ("all.jsonl", "correct.jsonl", "incorrect.jsonl")


def trace(problem: int, sample: int, response: str, finish_reason="stop") -> Trace:
    return Trace(
        problem_id=f"p{problem}",
        sample=sample,
        response=response,
        response_tokens=len(response) + 1,
        finish_reason=finish_reason,
        teacher="teacher",
    )


@pytest.fixture
def inputs(tmp_path):
    """A function that writes problems (p0 .. p9, whose answers are 0 .. 9) and traces, and returns a config."""

    def write(traces: list[Trace] | None = None, verifier: str = "math", **options) -> FilterConfig:
        problems = [Problem(id=f"p{i}", problem=f"What is {i}?", answer=str(i), verifier=verifier) for i in range(10)]
        if traces is None:  # sample 0 is right everywhere, sample 1 for p0 and p1 only
            traces = [
                trace(i, s, rf"so \boxed{{{i if s == 0 or i < 2 else i + 1}}}") for i in range(10) for s in (0, 1)
            ]
        write_jsonl(tmp_path / "problems.jsonl", problems)
        write_jsonl(tmp_path / "traces.jsonl", traces)
        return FilterConfig(problems=str(tmp_path / "problems.jsonl"), traces=str(tmp_path / "traces.jsonl"), **options)

    return write


def keys(path) -> list[tuple[str, int]]:
    return [(t.problem_id, t.sample) for t in read_jsonl(path, GradedTrace)]


def test_traces_are_graded_and_split_without_loss(inputs, tmp_path):
    config, work = inputs(), tmp_path / "work"
    counts = stage.main(config, str(work))
    assert counts == read_json(work / "counts.json")
    assert keys(work / "all.jsonl") == [(t.problem_id, t.sample) for t in read_jsonl(config.traces, Trace)]
    assert sorted(keys(work / "correct.jsonl") + keys(work / "incorrect.jsonl")) == sorted(keys(work / "all.jsonl"))
    assert keys(work / "incorrect.jsonl") == [(f"p{i}", 1) for i in range(2, 10)]
    first = read_jsonl(work / "all.jsonl", GradedTrace)[0]
    assert (first.extracted, first.correct, first.grader, first.hygiene) == ("0", True, GRADER_VERSION, [])
    assert counts["graded"] == counts["size"] == {"all": 20, "correct": 12, "incorrect": 8}
    assert counts["sha256"] == {name: sha256_file(work / name) for name in OUTPUTS}
    assert read_ledger(work)[0].stage == "filter"


def test_hygiene_is_counted_by_correctness_and_gates_leave_traces_out(inputs, tmp_path):
    traces = [
        trace(1, 0, r"\boxed{1}"),
        trace(1, 1, r"\boxed{1}", "length"),
        trace(2, 0, "no box here", "length"),
        trace(3, 0, r"see https://x.org \boxed{4}"),
        trace(4, 0, r"\boxed{3} no, \boxed{4}"),
    ]
    config = inputs(traces, gates=("length_stop", "url_or_html"))
    counts = stage.main(config, str(tmp_path / "work"))
    assert keys(tmp_path / "work" / "all.jsonl") == [("p1", 0), ("p4", 0)]
    assert set(counts["hygiene"]) == set(HYGIENE_FLAGS)
    assert counts["hygiene"]["length_stop"] == {"all": 2, "correct": 1, "incorrect": 1}
    assert counts["hygiene"]["missing_box"] == {"all": 1, "correct": 0, "incorrect": 1}
    assert counts["gates"]["url_or_html"] == {"all": 1, "correct": 0, "incorrect": 1}
    assert counts["box_disagreement"] == {"all": 1, "correct": 1, "incorrect": 0}
    assert counts["gated"] == 3
    assert counts["graded"]["all"] == 5
    assert counts["size_after_gates"] == {"all": 2, "correct": 2, "incorrect": 0}


def test_traces_that_failed_are_counted_and_in_no_subset(inputs, tmp_path):
    traces = [trace(1, 0, r"\boxed{1}"), trace(2, 0, "", "failed"), trace(3, 0, r"\boxed{9}")]
    counts = stage.main(inputs(traces), str(tmp_path / "work"))
    assert (counts["failed"], counts["gated"], counts["graded"]["all"]) == (1, 0, 3)
    assert keys(tmp_path / "work" / "all.jsonl") == [("p1", 0), ("p3", 0)]
    assert keys(tmp_path / "work" / "incorrect.jsonl") == [("p3", 0)]


def test_matched_subsets_have_one_size_and_depend_on_the_seed_alone(inputs, tmp_path):
    counts = stage.main(inputs(match_size=True), str(tmp_path / "a"))
    assert counts["size_after_gates"] == {"all": 20, "correct": 12, "incorrect": 8}
    assert counts["size"] == {"all": 8, "correct": 8, "incorrect": 8}
    stage.main(inputs(match_size=True), str(tmp_path / "b"))
    stage.main(inputs(match_size=True, seed=1), str(tmp_path / "c"))
    same = [(tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in (*OUTPUTS, "counts.json")]
    assert same == [True] * 4
    assert keys(tmp_path / "a" / "correct.jsonl") != keys(tmp_path / "c" / "correct.jsonl")
    everything = [(f"p{i}", s) for i in range(10) for s in (0, 1)]
    assert keys(tmp_path / "a" / "all.jsonl") == [k for k in everything if k in keys(tmp_path / "a" / "all.jsonl")]


@pytest.mark.parametrize("match", [True, False])
def test_max_traces_bounds_every_subset(inputs, tmp_path, match):
    counts = stage.main(inputs(max_traces=5, match_size=match), str(tmp_path / "work"))
    assert counts["size"] == counts["wanted"] == {"all": 5, "correct": 5, "incorrect": 5}


def test_a_matched_size_is_what_was_wanted(inputs, tmp_path, caplog):
    counts = stage.main(inputs(match_size=True), str(tmp_path / "work"))
    assert counts["wanted"] == counts["size"] == {"all": 8, "correct": 8, "incorrect": 8}
    assert "were wanted" not in caplog.text


def test_a_subset_that_is_smaller_than_wanted_says_so(inputs, tmp_path, caplog):
    counts = stage.main(inputs(max_traces=10), str(tmp_path / "work"))
    assert counts["wanted"] == {"all": 10, "correct": 10, "incorrect": 10}
    assert counts["size"] == {"all": 10, "correct": 10, "incorrect": 8}
    assert "incorrect.jsonl: 8 traces, 10 were wanted" in caplog.text
    assert "correct.jsonl: 10" not in caplog.text


def test_a_second_run_gives_the_same_files(inputs, tmp_path):
    config = inputs(match_size=True)
    stage.main(config, str(tmp_path / "work"))
    before = {name: (tmp_path / "work" / name).read_bytes() for name in (*OUTPUTS, "counts.json")}
    stage.main(config, str(tmp_path / "work"))
    assert {name: (tmp_path / "work" / name).read_bytes() for name in before} == before


def test_the_problems_own_verifier_is_used(inputs, tmp_path):
    counts = stage.main(inputs([trace(5, 0, r"\boxed{10/2}")], verifier="exact"), str(tmp_path / "work"))
    assert counts["graded"]["incorrect"] == 1


@pytest.mark.parametrize(
    ("traces", "options", "message"),
    [
        ([trace(11, 0, "x")], {}, r"traces.jsonl: trace 1: problem_id 'p11' is not in .*problems.jsonl"),
        ([], {}, r"traces.jsonl: holds no traces"),
        ([trace(1, 0, "x")] * 2, {}, r"traces.jsonl: line 2: sample: 0 of problem 'p1' is also on line 1"),
        ([trace(1, 0, "x")], {"match_size": True}, r"config.match_size: cannot match 0 correct and 1 incorrect"),
        ([trace(1, 0, "x")], {"verifier": "vibes"}, r"verifier 'vibes' is unknown"),
        ([trace(1, 0, "x")], {"gates": ("nice",)}, r"config.gates: 'nice' is not a hygiene flag"),
    ],
)
def test_bad_input_is_one_line(inputs, tmp_path, traces, options, message):
    with pytest.raises(W2SRError, match=message) as error:
        stage.main(inputs(traces, **options), str(tmp_path / "work"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "work" / "counts.json").exists()


def test_a_truncated_trace_file_is_named_with_its_line(inputs, tmp_path):
    config = inputs()
    text = (tmp_path / "traces.jsonl").read_text()
    (tmp_path / "traces.jsonl").write_text(text[:-20])
    with pytest.raises(W2SRError, match=r"traces.jsonl: line 20: not JSON"):
        stage.main(config, str(tmp_path / "work"))


def test_required_paths_are_asked_for(tmp_path):
    with pytest.raises(UsageError, match=r"config.problems: required"):
        stage.main(FilterConfig(), str(tmp_path))


def test_the_command_line_prints_one_line_and_exits_with_one(inputs, tmp_path, capsys):
    from w2sr_jax.core.runtime import launch

    config = inputs([trace(11, 0, "x")])
    arguments = [
        f"--config.problems={config.problems}",
        f"--config.traces={config.traces}",
        f"--workdir={tmp_path / 'w'}",
    ]
    assert launch("filter", stage.main, stage.CONFIG, arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("w2sr")]
    assert len(lines) == 1
    assert "p11" in lines[0]
    assert json.loads((tmp_path / "w" / "config.json").read_text())


def test_traces_that_hold_benchmark_problems_are_counted_listed_and_gated(inputs, tmp_path):
    asked = "A train leaves the old town at noon and travels north at forty miles an hour; when does it arrive"
    write_jsonl(tmp_path / "bench.jsonl", [Problem(id="b0", problem=asked, answer="1")])
    traces = [trace(1, 0, rf"\boxed{{1}} {asked}?"), trace(2, 0, r"\boxed{2}"), trace(3, 0, r"a train \boxed{4}")]
    config = inputs(traces, contamination=(str(tmp_path / "bench.jsonl"),))
    counts = stage.main(config, str(tmp_path / "counted"))
    assert counts["contamination"] == {
        "words": 13,
        "benchmarks": {"bench": {"problems": 1, "traces": 1}},
        "problems_compared_whole": 0,
        "traces": 1,
        "by_problem": 0,
        "gate": False,
    }
    assert counts["size"]["all"] == 3
    (listed,) = read_jsonl(tmp_path / "counted" / "contaminated.jsonl", Overlap)
    assert (listed.problem_id, listed.benchmark_problem, listed.part) == ("p1", "b0", "response")
    assert listed.words == "a train leaves the old town at noon and travels north at forty"

    config.contamination_gate = True
    counts = stage.main(config, str(tmp_path / "gated"))
    assert keys(tmp_path / "gated" / "all.jsonl") == [("p2", 0), ("p3", 0)]
    assert counts["gated"] == 1


def test_a_contamination_gate_without_benchmarks_is_a_usage_error(inputs, tmp_path):
    with pytest.raises(UsageError, match=r"config.contamination_gate: needs config.contamination"):
        stage.main(inputs(contamination_gate=True), str(tmp_path / "work"))
