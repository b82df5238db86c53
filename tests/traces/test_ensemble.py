"""Ensembles of teachers: one is itself, k of the same are one, and each rule takes what it says."""

import collections
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2sr_jax.core.files import write_jsonl
from w2sr_jax.core.records import Trace
from w2sr_jax.core.trace_config import ENSEMBLES, TransformConfig
from w2sr_jax.stages import transform
from w2sr_jax.traces.ensemble import ensemble
from w2sr_jax.traces.votes import answer_of, votes


def trace(problem: str, response: str, sample: int = 0, teacher: str = "a", finish_reason: str = "stop") -> Trace:
    return Trace(
        problem_id=problem,
        sample=sample,
        response=response,
        response_tokens=len(response),
        finish_reason=finish_reason,
        teacher=teacher,
    )


def answers(teacher: str, *given: str) -> list[Trace]:
    return [trace(f"p{i}", rf"by {teacher}: \boxed{{{answer}}}", teacher=teacher) for i, answer in enumerate(given)]


def taken(teachers, how, seed=0) -> list[str]:
    return [t.teacher for t in ensemble(teachers, how, seed)[0]]


TEACHER = st.lists(
    st.tuples(st.sampled_from("pqr"), st.integers(0, 2), st.text("0123456789\\boxed{} ab", max_size=12)),
    unique_by=lambda row: row[:2],
    min_size=1,
)


@given(rows=TEACHER, how=st.sampled_from(ENSEMBLES), seed=st.integers(0, 9))
def test_an_ensemble_of_one_is_that_teacher(rows, how, seed):
    traces = [trace(problem, response, sample) for problem, sample, response in rows]
    assert ensemble([traces], how, seed)[0] == traces


@given(rows=TEACHER, copies=st.integers(2, 5), seed=st.integers(0, 9), how=st.sampled_from(ENSEMBLES))
def test_a_vote_of_identical_teachers_is_one_of_them(rows, copies, seed, how):
    traces = [trace(problem, response, sample) for problem, sample, response in rows]
    assert ensemble([traces] * copies, how, seed)[0] == traces


def test_one_teacher_passes_through_the_stage_to_the_byte(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", answers("a", "1", "2", "3"))
    for how in ENSEMBLES:
        config = TransformConfig(what="ensemble", ensemble=how, traces=(str(tmp_path / "a.jsonl"),))
        transform.main(config, str(tmp_path / how))
        assert (tmp_path / how / "traces.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_the_majority_wins():
    teachers = [answers("a", "1", "5"), answers("b", "2", "5"), answers("c", "02", "6")]
    taken_by_seed = {tuple(taken(teachers, "majority", seed)) for seed in range(30)}
    assert taken_by_seed == {(first, second) for first in "bc" for second in "ab"}


@pytest.mark.parametrize("how", ["majority", "hygiene"])
def test_among_equals_neither_the_first_teacher_nor_the_shortest_trace_is_preferred(how):
    count = 3000
    teachers = [answers(name, *["1"] * count) for name in ("a", "bb much longer", "c")]
    shares = collections.Counter(taken(teachers, how))
    assert [shares[name] / count for name in ("a", "bb much longer", "c")] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert taken(teachers, how) == taken(teachers, how) != taken(teachers, how, seed=1)
    # Three that all answer differently are a tie, too.
    teachers = [answers(name, *[given] * count) for name, given in zip("abc", "123", strict=True)]
    assert max(collections.Counter(taken(teachers, how)).values()) / count == pytest.approx(1 / 3, abs=0.04)


def test_samples_of_all_teachers_vote_on_a_problem():
    a = [trace("p", r"\boxed{1}", 0), trace("p", r"\boxed{2}", 1)]
    b = [trace("p", r"\boxed{2}", 0, "b"), trace("p", r"\boxed{3}", 1, "b")]
    assert [(t.teacher, t.sample) for t in ensemble([a, b], "majority", 0)[0]] == [("b", 0), ("a", 1)]


def test_a_trace_without_an_answer_has_no_vote():
    silent = [trace("p0", "hm")]
    assert votes([*silent, *answers("b", "4")])["p0"] == {"4": 1}
    assert taken([silent, [dataclasses.replace(silent[0], teacher="x")], answers("b", "4")], "majority") == ["b"]
    alike = [silent, [dataclasses.replace(silent[0], teacher="x")]]
    assert {taken(alike, "majority", seed)[0] for seed in range(20)} == {"a", "x"}
    assert answer_of(trace("p", r"\boxed{1}", finish_reason="failed")) is None


@pytest.mark.parametrize(("how", "expected"), [("mix", 1 / 3), ("agreement", 2 / 3 / (2 / 3 + 2 / 3 + 1 / 3))])
def test_chance_takes_each_as_likely_as_it_should(how, expected):
    count = 3000
    teachers = [answers(name, *[given] * count) for name, given in (("a", "1"), ("b", "1"), ("c", "2"))]
    shares = collections.Counter(taken(teachers, how))
    assert shares["a"] / count == pytest.approx(expected, abs=0.03)
    assert shares["a"] / count == pytest.approx(shares["b"] / count, abs=0.04)
    assert taken(teachers, how) == taken(teachers, how)
    assert taken(teachers, how) != taken(teachers, how, seed=1)


def test_a_healthy_trace_is_taken_rather_than_an_ill_one_whatever_its_length():
    ill, long, short = r"see https://x.org \boxed{1}", r"one and one is \boxed{1}", r"it is \boxed{1}"
    teachers = [[trace("p", text, teacher=name)] for name, text in (("ill", ill), ("long", long), ("short", short))]
    assert {taken(teachers, "hygiene", seed)[0] for seed in range(20)} == {"long", "short"}
    assert taken(teachers[:2], "hygiene") == ["long"]


@pytest.mark.parametrize("how", ENSEMBLES)
def test_a_trace_that_failed_is_taken_only_where_there_is_no_other(how):
    failed = [trace("p", "", teacher="failed", finish_reason="failed")]
    ill = [trace("p", "see https://x.org " * 30, teacher="ill", finish_reason="length")]
    assert {taken([failed, ill], how, seed)[0] for seed in range(20)} == {"ill"}
    assert taken([failed, failed], how) == ["failed"]
    assert ensemble([failed, ill], how, 0)[1] == {"traces": 1, "contested": 0, "disagreeing": 0}


def test_counts_say_where_teachers_disagree():
    _, counts = ensemble([answers("a", "1", "2", "3"), answers("b", "1", "5")], "mix", 0)
    assert counts == {"traces": 3, "contested": 2, "disagreeing": 1}
