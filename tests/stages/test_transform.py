"""The transform stage: files in, files out, for each thing that it does, and its one-line errors."""

import dataclasses
import json

import pytest

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json, read_jsonl, sha256_file, write_jsonl
from w2sr_jax.core.records import EditedTrace, Problem, Trace
from w2sr_jax.core.trace_config import FilterConfig, InjectConfig, SelectConfig, TransformConfig
from w2sr_jax.data.benchmarks import BENCHMARKS
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.data.examples import load_examples
from w2sr_jax.data.solutions import load_solutions
from w2sr_jax.stages import filter as filter_stage
from w2sr_jax.stages import transform
from w2sr_jax.traces.edits import restored


def trace(number: int, response: str, sample: int = 0, teacher: str = "t") -> Trace:
    return Trace(
        problem_id=f"p{number}",
        sample=sample,
        response=response,
        response_tokens=len(response),
        finish_reason="stop",
        teacher=teacher,
    )


@pytest.fixture
def inputs(tmp_path):
    """Ten sums with worked answers: their problems and their traces."""
    problems = [Problem(id=f"p{i}", problem=f"{i}+1=?", answer=str(i + 1)) for i in range(10)]
    traces = [trace(i, rf"<work>{i}+1={i + 1}\boxed{{{i + 1}}}") for i in range(10)]
    write_jsonl(tmp_path / "problems.jsonl", problems)
    write_jsonl(tmp_path / "traces.jsonl", traces)
    return tmp_path


def config(root, what, **options) -> TransformConfig:
    defaults = {"traces": (str(root / "traces.jsonl"),), "problems": str(root / "problems.jsonl")}
    return TransformConfig(what=what, **defaults | options)


def test_injected_traces_are_restored_graded_and_trained_on_like_any_other(inputs, files, tmp_path):
    work = tmp_path / "work"
    counts = transform.main(config(inputs, "inject", inject=InjectConfig(rate=0.5, modulus=10)), str(work))
    assert counts == read_json(work / "counts.json")
    assert (counts["traces"], counts["touched"]) == (10, 5)
    found = read_jsonl(work / "traces.jsonl", EditedTrace)
    assert [restored(t) for t in found] == read_jsonl(inputs / "traces.jsonl", Trace)
    graded = filter_stage.main(
        FilterConfig(problems=str(inputs / "problems.jsonl"), traces=str(work / "traces.jsonl")), str(tmp_path / "f")
    )
    assert graded["graded"] == {"all": 10, "correct": 5, "incorrect": 5}
    data = DataConfig(problems=str(inputs / "problems.jsonl"), traces=str(work / "traces.jsonl"), template="plain")
    examples, _ = load_examples(data, load_tokenizer(files.model), files.model)
    assert len(examples) == 10
    assert read_ledger(work)[0].stage == "transform"


def test_the_same_seed_gives_the_same_bytes(inputs, tmp_path):
    for name in ("a", "b"):
        transform.main(config(inputs, "inject", seed=5, inject=InjectConfig(rate=0.3)), str(tmp_path / name))
    assert (tmp_path / "a/traces.jsonl").read_bytes() == (tmp_path / "b/traces.jsonl").read_bytes()


def test_supervision_by_the_answer_alone_and_by_reasoning_alone(inputs, tmp_path):
    transform.main(config(inputs, "supervise", supervise="answer_only"), str(tmp_path / "a"))
    transform.main(config(inputs, "supervise", supervise="reasoning_only"), str(tmp_path / "b"))
    (answer, *_), (reasoning, *_) = (read_jsonl(tmp_path / f"{n}/traces.jsonl", EditedTrace) for n in "ab")
    assert (answer.response, answer.finish_reason) == (r"\boxed{1}", "stop")
    # Without an answer nothing may teach to stop.
    assert (reasoning.response, reasoning.finish_reason) == ("<work>0+1=1", "length")
    assert restored(answer) == restored(reasoning) == read_jsonl(inputs / "traces.jsonl", Trace)[0]


def test_written_solutions_become_traces(tmp_path):
    rows = [
        {"question": "How many?", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\n#### 24"},
        {"question": "How long?", "answer": "5 days.\n#### 5"},
    ]
    (tmp_path / "gsm8k.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    made = config(tmp_path, "supervise", supervise="solutions", traces=(), problems=str(tmp_path / "gsm8k.jsonl"))
    transform.main(made, str(tmp_path / "out"))
    found = read_jsonl(tmp_path / "out/traces.jsonl", Trace)
    assert [t.response for t in found] == ["She sold 48/2 = 24 clips.\n\\boxed{24}", "5 days.\n\\boxed{5}"]
    assert (found[0].problem_id, found[0].teacher) == ("gsm8k/0", "human")
    row = {"problem": "?", "solution": r"It is \boxed{3}.", "level": "Level 1", "type": "Algebra"}
    (tmp_path / "math.jsonl").write_text(json.dumps(row) + "\n")
    transform.main(made.__class__(**{**_fields(made), "problems": str(tmp_path / "math.jsonl")}), str(tmp_path / "m"))
    assert read_jsonl(tmp_path / "m/traces.jsonl", Trace)[0].response == r"It is \boxed{3}."


def test_solutions_come_from_every_source_of_problems(tmp_path, monkeypatch):
    row = {"question": "How many?", "answer": "Two.\n#### 2", "extra": 1}
    monkeypatch.setattr("w2sr_jax.data.hub.fetch_rows", lambda source: iter([(1, row)]))
    (hub,) = load_solutions("hf:owner/data:test")
    assert (hub.problem_id, hub.response) == ("owner/data:test/0", "Two.\n\\boxed{2}")

    proof = {"id": 7, "question": "Which?", "final_answer": ["3"], "solution": ["First part.", "Second part."]}
    (tmp_path / "olympiadbench.jsonl").write_text(json.dumps(proof) + "\n")
    pinned = dataclasses.replace(BENCHMARKS["olympiadbench"], sha256=sha256_file(tmp_path / "olympiadbench.jsonl"))
    monkeypatch.setitem(BENCHMARKS, "olympiadbench", pinned)
    monkeypatch.setenv("W2SR_BENCHMARKS", str(tmp_path))
    (bench,) = load_solutions("bench:olympiadbench")
    assert (bench.problem_id, bench.response) == ("olympiadbench/7", "First part.\n\nSecond part.\n\\boxed{3}")
    with pytest.raises(UsageError, match="gym:letter_counting: is generated"):
        load_solutions("gym:letter_counting")


def _fields(made: TransformConfig) -> dict:
    return {name: getattr(made, name) for name in made.__slots__}


def test_problems_without_solutions_are_named(inputs, tmp_path):
    made = config(inputs, "supervise", supervise="solutions", traces=())
    with pytest.raises(W2SRError, match="problem 'p0': solution: missing"):
        transform.main(made, str(tmp_path / "out"))


def test_selections_are_of_one_size(inputs, tmp_path):
    for by, keep in (("length", "lowest"), ("random", "highest"), ("consistency", "middle")):
        select = SelectConfig(by=by, keep=keep, size=4)
        counts = transform.main(config(inputs, "select", select=select), str(tmp_path / by))
        assert (counts["kept"], len(read_jsonl(tmp_path / by / "traces.jsonl", Trace))) == (4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": "inject", "traces": ()}, "config.traces: a file of traces is needed"),
        ({"what": "inject", "problems": ""}, "config.problems: required for what=inject"),
        ({"what": "select", "traces": ("a", "b")}, "config.traces: select takes one file, got 2"),
        ({"what": "select", "select": SelectConfig(by="surprisal")}, "needs scores.jsonl of `w2sr score`"),
        ({"what": "supervise", "supervise": "solutions"}, "except for supervise=solutions"),
    ],
)
def test_a_config_that_cannot_be_is_named(inputs, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        transform.main(config(inputs, **options), str(tmp_path / "out"))


def test_traces_of_other_problems_are_named(inputs, tmp_path):
    write_jsonl(inputs / "problems.jsonl", [Problem(id="q", problem="?", answer="1")])
    with pytest.raises(W2SRError, match="problem_id 'p0' is not in"):
        transform.main(config(inputs, "inject"), str(tmp_path / "out"))


def test_difficulty_needs_grades(inputs, tmp_path):
    with pytest.raises(W2SRError, match="difficulty and only_correct need graded traces"):
        transform.main(config(inputs, "select", select=SelectConfig(by="difficulty")), str(tmp_path / "out"))
