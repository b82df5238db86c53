"""The trace lab's counts, against traces made for it."""

import dataclasses
import json

import numpy as np
import pytest

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import GradedTrace, Problem, Trace
from w2sr_jax.traces import grades, lab, markers
from w2sr_jax.traces.duplicates import NearDuplicates
from w2sr_jax.traces.edits import edited
from w2sr_jax.traces.supervision import reasoning_only


def trace(number=0, response="so \\boxed{4}", tokens=9, problem="p", correct=None, finish="stop", flags=()):
    fields = {"problem_id": problem, "sample": number, "response": response, "response_tokens": tokens}
    fields |= {"finish_reason": finish, "teacher": "t"}
    if correct is None:
        return Trace(**fields)
    return GradedTrace(**fields, extracted="4", correct=correct, grader="g", hygiene=list(flags))


def of(*traces):
    """The traces, of which nothing is known but their own grades."""
    return [(one, None) for one in traces]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Wait, 2+2=4. wait!", {"wait": 2}),
        ("We waited; the waiter came.", {}),
        ("LET ME CHECK: let’s verify. Alternatively, another way", {"check": 2, "alternatively": 2}),
        ("Oops, I made a mistake; that's not right. Hmm.", {"mistake": 3, "hmm": 1}),
        ("Hold on. On second thought, let me try again", {"second_thought": 2, "again": 1}),
        ("Actually no.", {"actually": 1}),
    ],
)
def test_markers_are_whole_words_in_any_case(text, found):
    assert markers.count(text) == found


def test_a_set_is_counted():
    traces = [
        trace(0, "Wait. 2+2=4\nso it is\n\\boxed{4}", 10, "a", True),
        trace(1, "no answer", 30, "a", False, flags=["missing_box"]),
        trace(2, "", 0, "b", finish="failed"),
        trace(3, "a b c \\boxed{1}", 20, "b", True),
    ]
    found = lab.study(of(*traces), {"a": "1", "b": "2"}, {("t", "a", 0): 0.5})
    assert (found["traces"], found["problems"], found["failed"]) == (3, 2, 1)
    assert found["tokens"]["mean"] == 20
    assert found["tokens"]["p50"] == 20
    assert found["reflective"] == found["markers"]["wait"] == found["marks"] == 1
    assert found["hygiene"]["missing_box"] == found["unhealthy"] == 1
    assert (found["graded"], found["right"]) == (3, 2)
    assert found["by_level"] == {"1": [1, 2], "2": [1, 1]}
    assert [(row["from"], row["to"], row["right"], row["graded"]) for row in found["by_length"]] == [
        (10, 10, 1, 1), (20, 20, 1, 1), (30, 30, 0, 1),
    ]  # fmt: skip
    assert found["surprisal"]["mean"] == 0.5
    json.dumps(found)


def test_raw_traces_are_checked_for_health_but_not_for_right_answers():
    found = lab.study(of(trace(response="no box"), trace(1, "cut \\boxed{", finish="length")), {})
    assert found["hygiene"]["missing_box"] == 2
    assert found["hygiene"]["length_stop"] == 1
    assert (found["graded"], found["by_length"], found["surprisal"]) == (0, [], None)


def test_a_set_without_traces_is_an_error():
    with pytest.raises(W2SRError, match=r"x\.jsonl: holds no traces"):
        lab.study(of(trace(finish="failed")), {}, name="x.jsonl")


def test_ungraded_traces_are_graded_where_their_problem_is_known():
    problems = {"p": Problem(id="p", problem="2+2", answer="4", level="1")}
    traces = [
        trace(0),
        trace(1, r"\boxed{5}"),
        trace(2, problem="unknown"),
        trace(3, r"\boxed{2^2}"),
        trace(4, correct=False),  # its own grade counts
        trace(5, finish="failed"),
    ]
    found = list(grades.graded(iter(traces), problems))
    assert [one for one, _ in found] == traces
    assert [right for _, right in found] == [True, False, None, True, False, None]
    study = lab.study(found, {"p": "1"})
    assert (study["graded"], study["right"], study["by_level"]) == (4, 2, {"1": [2, 4]})


def test_changed_traces_have_no_known_tokens_and_no_flag_that_the_change_set():
    original = trace(0, "1+1=2\nso \\boxed{2}", 12)
    changed = reasoning_only(original)
    assert changed.finish_reason == "length"
    found = lab.study(of(changed, trace(1)), {})
    assert (found["edited"], found["tokens"], found["by_length"]) == (1, None, [])
    assert found["characters"]["mean"] == (len("1+1=2\n") + len(trace().response)) / 2
    assert found["hygiene"]["length_stop"] == 0
    assert found["hygiene"]["missing_box"] == 1
    cut = reasoning_only(dataclasses.replace(original, finish_reason="length"))  # that one ran to its limit itself
    assert lab.study(of(cut), {})["hygiene"]["length_stop"] == 1
    untouched = edited(original, original.response, "")
    assert lab.study(of(untouched), {})["tokens"]["mean"] == 12


def test_a_path_may_be_a_file_or_a_workdir(tmp_path):
    (tmp_path / "traces.jsonl").touch()
    assert lab.trace_file(str(tmp_path)).name == "traces.jsonl"
    (tmp_path / "all.jsonl").touch()
    assert lab.trace_file(str(tmp_path)).name == "all.jsonl"
    with pytest.raises(W2SRError, match="nowhere: neither a trace file nor the workdir"):
        lab.trace_file("nowhere")


def words(rng, count):
    return [f"w{i}" for i in rng.integers(0, 5000, count)]


def test_copies_with_a_few_changed_words_are_found_and_unlike_texts_are_not():
    rng = np.random.default_rng(0)
    found = NearDuplicates()
    originals = [words(rng, 300) for _ in range(200)]
    for number, text in enumerate(originals):
        found.add(f"p{number}", " ".join(text))
    for number in range(50):
        changed = list(originals[number])
        changed[150] = "changed"  # 5 of 296 runs differ
        found.add(f"p{number}" if number < 30 else "another", " ".join(changed))
    assert found.count() == {"traces": 50, "other_problem": 20}


def test_texts_that_share_half_of_their_runs_are_no_near_duplicates():
    rng = np.random.default_rng(1)
    found = NearDuplicates()
    for _ in range(50):
        text = words(rng, 300)
        found.add("a", " ".join(text))
        found.add("a", " ".join(text[:200] + words(rng, 100)))  # Jaccard about 0.5
    assert found.count()["traces"] == 0


def test_texts_shorter_than_a_run_are_compared_whole():
    found = NearDuplicates()
    for text in ("30", "30", "31", "", ""):
        found.add("p", text)
    assert found.count()["traces"] == 2


def test_many_copies_of_one_text_are_counted_once_each():
    found = NearDuplicates()
    for _ in range(3000):
        found.add("p", "the same words over and over again")
    assert found.count() == {"traces": 2999, "other_problem": 0}
    assert NearDuplicates().count() == {"traces": 0, "other_problem": 0}
