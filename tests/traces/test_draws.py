"""Draws that belong to a trace: what they have always been, whatever else a file holds."""

import collections
import random

from w2sr_jax.core.records import Trace
from w2sr_jax.traces.draws import generator, ordinals, shuffled


def traces(*teachers: str, count: int = 6) -> list[Trace]:
    return [
        Trace(problem_id=f"p{i}", sample=s, response="", response_tokens=1, finish_reason="stop", teacher=teacher)
        for teacher in teachers
        for i in range(count)
        for s in range(2)
    ]


def test_one_teachers_draws_are_those_of_earlier_versions():
    alone = traces("t")
    assert shuffled(0, alone, "select") == [1, 6, 2, 10, 0, 9, 5, 11, 4, 7, 8, 3]
    assert shuffled(3, alone, "touched") == [11, 10, 3, 6, 9, 7, 4, 2, 0, 1, 5, 8]
    assert generator(1, alone[3], "slip").random() == 0.7153295964550376


def test_neither_the_teachers_name_nor_where_traces_stand_changes_a_draw():
    alone = traces("t", count=50)
    mixed = random.Random(0).sample(traces("some/other/path", count=50), 100)
    named = [(t.problem_id, t.sample) for t in alone]
    assert [named[i] for i in shuffled(0, alone, "select")] == [
        (mixed[i].problem_id, mixed[i].sample) for i in shuffled(0, mixed, "select")
    ]


def test_teachers_of_the_same_problems_draw_apart_in_whatever_order_they_stand():
    both, turned = traces("a", "b", count=50), traces("b", "a", count=50)
    first = [both[i] for i in shuffled(0, both, "select")]
    assert first == [turned[i] for i in shuffled(0, turned, "select")]
    assert [t for t in first if t.teacher == "a"] == [
        traces("a", count=50)[i] for i in shuffled(0, traces("a", count=50), "select")
    ]
    half = first[:100]
    assert 60 < len({(t.problem_id, t.sample) for t in half}) < 90  # 75 by chance; it was 50
    assert {both[shuffled(seed, both, "select")[0]].teacher for seed in range(20)} == {"a", "b"}


def test_only_traces_of_the_same_problem_and_sample_are_counted():
    assert set(ordinals(traces("t"))) == {0}
    assert collections.Counter(ordinals(traces("a", "b", "a"))) == {0: 12, 1: 12, 2: 12}
    assert ordinals(traces("b", "a", count=1)) == [1, 1, 0, 0]
