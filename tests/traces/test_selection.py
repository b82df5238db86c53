"""Selections by a score: which traces they keep, how many, and that they differ in the score alone."""

import dataclasses

import pytest

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import GradedTrace, TraceScore
from w2sr_jax.core.trace_config import SelectConfig
from w2sr_jax.traces.edits import edited
from w2sr_jax.traces.selection import consistency, select
from w2sr_jax.traces.supervision import answer_only


def trace(problem: int, sample: int, response: str, correct: bool = True) -> GradedTrace:
    return GradedTrace(
        problem_id=f"p{problem}",
        sample=sample,
        response=response,
        response_tokens=len(response),
        finish_reason="stop",
        teacher="t",
        extracted=None,
        correct=correct,
        grader="g",
        hygiene=[],
    )


def kept(traces, seed=0, surprisal=None, **options) -> list[tuple[str, int]]:
    return [(t.problem_id, t.sample) for t in select(traces, SelectConfig(**options), seed, surprisal)[0]]


def test_a_majority_labels_without_answers():
    traces = [
        *(trace(0, s, rf"\boxed{{{a}}}", correct=False) for s, a in enumerate("1123")),  # wrong, but agreed on
        *(trace(1, s, rf"\boxed{{{a}}}") for s, a in enumerate("1122")),  # a tie has no label
        *(trace(2, s, rf"\boxed{{{a}}}") for s, a in enumerate("0505")),
        trace(3, 0, "nothing"),
    ]
    assert kept(traces, by="majority") == [("p0", 0), ("p0", 1)]
    assert kept(traces[:4], by="majority", min_agreement=0.5) == [("p0", 0), ("p0", 1)]
    with pytest.raises(W2SRError, match="none of 4 traces qualifies by majority"):
        kept(traces[:4], by="majority", min_agreement=0.6)


def test_a_trace_without_an_answer_agrees_with_nobody_but_counts():
    traces = [trace(0, s, text) for s, text in enumerate([r"\boxed{1}", r"\boxed{1}", "none", "none"])]
    assert kept(traces, by="majority", min_agreement=0.5) == [("p0", 0), ("p0", 1)]
    with pytest.raises(W2SRError, match="none of 4 traces qualifies"):
        kept(traces, by="majority", min_agreement=0.51)


def test_length_and_steps_keep_either_end_or_the_middle():
    traces = [trace(i, 0, "a.\n" * i + rf"\boxed{{{i}}}") for i in range(2, 11)]
    for by in ("length", "steps"):
        assert kept(traces, by=by, keep="lowest", size=2) == [("p2", 0), ("p3", 0)]
        assert kept(traces, by=by, keep="highest", size=2) == [("p9", 0), ("p10", 0)]
        assert kept(traces, by=by, keep="middle", size=3) == [("p5", 0), ("p6", 0), ("p7", 0)]


def test_the_length_of_edited_traces_is_in_characters_since_their_tokens_are_not_known():
    long, short = trace(0, 0, "a b c. " * 50 + r"\boxed{1}"), trace(1, 0, r"x is \boxed{1000}")
    answers = [answer_only(long), answer_only(short)]
    assert kept(answers, by="length", size=1) == [("p1", 0)]
    unchanged = [
        edited(long, long.response, ""),
        dataclasses.replace(edited(short, short.response, ""), response_tokens=999),
    ]
    assert kept(unchanged, by="length", size=1) == [("p1", 0)]
    assert kept([*answers[:1], unchanged[1]], by="length", size=1) == [("p1", 0)]


def test_consistency_is_the_share_of_equations_that_hold():
    assert consistency(r"1+1=2 and 2*3=7 \boxed{7}") == 0.5
    assert consistency(r"<work>99+4=03*2=06\boxed{06}", modulus=100) == 1.0
    assert consistency(r"\boxed{7}") == 0.0
    traces = [trace(0, 0, r"1+1=3 \boxed{3}"), trace(1, 0, r"1+1=2 \boxed{2}")]
    assert kept(traces, by="consistency", size=1) == [("p1", 0)]


def test_difficulty_counts_all_samples_and_keeps_correct_ones():
    traces = [trace(p, s, "x", correct=s <= p) for p in range(3) for s in range(3)]
    assert kept(traces, by="difficulty", keep="highest", only_correct=True, size=1) == [("p0", 0)]
    assert {p for p, _ in kept(traces, by="difficulty", keep="lowest", only_correct=True, size=3)} == {"p2"}


def test_surprisal_keeps_the_scored_traces_by_their_score():
    traces = [trace(i, 0, "x") for i in range(4)]
    scores = {
        ("t", f"p{i}", 0): TraceScore(problem_id=f"p{i}", sample=0, teacher="t", surprisal=float(i), tokens=1)
        for i in range(3)
    }
    options = {"surprisal": scores, "by": "surprisal", "scores": "somewhere"}
    assert kept(traces, keep="lowest", size=1, **options) == [("p0", 0)]
    assert kept(traces, keep="highest", size=9, **options) == [("p0", 0), ("p1", 0), ("p2", 0)]


def test_a_selection_that_is_short_says_so(caplog):
    traces = [trace(i, 0, r"\boxed{1}", correct=i < 3) for i in range(8)]
    found, counts = select(traces, SelectConfig(only_correct=True, size=5), 0)
    assert counts == {"traces": 8, "qualified": 3, "wanted": 5, "kept": 3}
    assert len(found) == 3
    assert "3 of 8 traces qualify, 5 were wanted" in caplog.text
    caplog.clear()
    assert select(traces, SelectConfig(size=5), 0)[1]["kept"] == 5
    assert caplog.text == ""


def test_equal_scores_are_drawn_alike_whatever_the_score():
    traces = [trace(i, 0, r"1+1=2 \boxed{2}") for i in range(40)]
    draws = [kept(traces, by=by, size=10) for by in ("random", "length", "steps", "consistency", "difficulty")]
    assert all(draw == draws[0] for draw in draws)
    assert kept(traces, seed=1, by="random", size=10) != draws[0]
