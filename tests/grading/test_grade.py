"""The case table, hard inputs, and totality of the grader."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from w2sr_jax.core.errors import UsageError
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.grading.grade import GRADER_VERSION, VERIFIERS, Grade, GraderPool, check_verifier, grade, grade_many
from w2sr_jax.grading.verdict import decide

CASES = [json.loads(line) for line in Path(__file__).with_name("cases.jsonl").read_text().splitlines()]
# The published benchmark files are not part of the repository; the agreement tests run where they are.
FOLDER = Path(os.environ.get("W2SR_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks"))
BENCHMARKS = sorted(FOLDER.glob("*.jsonl"))
DEADLINE_S = 60.0  # generous: these tests are about verdicts, and the machine may be busy


@pytest.fixture(scope="module")
def graded():
    """The grades of all cases, made at once."""
    grades = grade_many([(case["response"], case["answer"]) for case in CASES], deadline_s=DEADLINE_S)
    return {(case["response"], case["answer"]): g for case, g in zip(CASES, grades, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_the_case_table(case, graded):
    result = graded[case["response"], case["answer"]]
    assert (result.correct, result.error) == (case["correct"], None), f"extracted {result.extracted!r}"


def test_the_case_table_has_at_least_60_different_cases():
    assert len({(case["response"], case["answer"]) for case in CASES}) == len(CASES) >= 60


HARD = {
    "a tower of powers": r"\boxed{9**9**9**9}",
    "a tower of powers in braces": r"\boxed{9^{9^{9^{9}}}}",
    "1 MB of braces": r"\boxed{" + "{" * 500_000 + "}" * 500_000 + "}",
    "1 MB of open braces": r"\boxed{" + "{" * 1_000_000,
    "1 MB of boxes": r"\boxed{" * 150_000,
    "10,000 digits": r"\boxed{" + "7" * 10_000 + "}",
    "300,000 answers": "the answer is " * 300_000,
    "1 MB of backslashes": r"\boxed{" + "\\" * 1_000_000 + "}",
    "2,000 commas": r"\boxed{" + "1," * 990 + "}",
}


@pytest.mark.parametrize("name", HARD)
def test_hard_inputs_are_false_within_seconds_and_start_no_process(name):
    begun = time.monotonic()
    _, decided = decide(HARD[name], "5", "math")
    assert decided is not None
    assert not decided.correct
    assert time.monotonic() - begun < 10


def test_a_runaway_computation_is_false_at_the_deadline_and_leaves_no_process(children):
    (result,) = grade_many([(r"\boxed{9^{9^{9}}}", "5")], deadline_s=1.0)
    assert result == Grade("9^{9^{9}}", False, "no verdict within 1 s")
    assert children() == set()


def test_integers_start_no_process_and_take_microseconds(children):
    pairs = [(rf"T67*2=34\boxed{{{i % 97}}}", str(i % 89)) for i in range(5000)]
    begun = time.monotonic()
    with GraderPool(workers=2) as pool:
        grades = pool.grade_many(pairs)
        assert children() == set()
    assert time.monotonic() - begun < 5
    assert sum(g.correct for g in grades) == sum(i % 97 == i % 89 for i in range(5000))


def test_one_response_is_graded_like_many():
    response = r"so \boxed{\frac{x}{2}+\frac{x}{2}}"
    assert grade(response, "x") == grade_many([(response, "x")])[0] == Grade(r"\frac{x}{2}+\frac{x}{2}", True)


def test_progress_counts_every_pair_once():
    seen = []
    pairs = [(r"\boxed{5}", "5"), (r"\boxed{2x+x}", "3x"), (r"\boxed{2x+x}", "3x"), ("none", "5")]
    with GraderPool(workers=1, deadline_s=DEADLINE_S) as pool:
        grades = pool.grade_many(pairs, on_graded=seen.append)
    assert [g.correct for g in grades] == [True, True, True, False]
    assert seen == [2, 4]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(max_size=60)
    | st.text(alphabet=r"\boxed{}[]()0123456789.,/^*=+-$% answeris#_xy<>", max_size=60)
    | st.lists(st.sampled_from([r"\boxed{", "}", r"\frac", "1", ",", "(", ")", "{", "=", "^", "x", "%"])).map("".join),
    st.text(max_size=20) | st.sampled_from(["5", r"\frac{1}{2}", "(1,2)", "x=5", ""]),
    st.sampled_from([*VERIFIERS, "other"]),
)
def test_nothing_that_a_model_can_write_raises(text, answer, verifier):
    for response in (text, rf"\boxed{{{text}}}"):
        extracted, decided = decide(response, answer, verifier)
        assert decided is None or decided.extracted == extracted or not decided.correct


@pytest.mark.parametrize("response", [None, 5, b"x", ["x"]])
def test_what_is_no_text_is_incorrect(response):
    assert grade(response, "5") == Grade(None, False, "response and answer must be text")


@pytest.mark.parametrize(
    ("verifier", "response", "answer", "correct"),
    [
        ("choice", r"\boxed{(B)}", "B", True),
        ("choice", r"\boxed{\text{b}}", "B", True),
        ("choice", r"\boxed{(B) 12}", "B", True),
        ("choice", r"\boxed{B) 12}", "B", True),
        ("choice", r"\boxed{B. 12}", "B", True),
        ("choice", r"\boxed{B: \text{twelve}}", "B", True),
        ("choice", r"\boxed{b)}", "B", True),
        ("choice", r"\boxed{\text{(B) 12}}", "B", True),
        ("choice", r"\boxed{\textbf{(B)}\ 12}", "B", True),
        ("choice", r"\boxed{\text{B. 12}}", "B", True),
        ("choice", r"\boxed{\text{(C) B}}", "B", False),
        ("choice", r"\boxed{\textbf{(C)}\ B}", "B", False),
        ("choice", r"\boxed{\text{B or C}}", "B", False),
        ("choice", r"\boxed{(C) B}", "B", False),
        ("choice", r"\boxed{C. B}", "B", False),
        ("choice", r"\boxed{B or C}", "B", False),
        ("choice", r"\boxed{BC}", "B", False),
        ("choice", r"\boxed{Because}", "B", False),
        ("choice", r"\boxed{C}", "B", False),
        ("exact", r"\boxed{ab cd}", "ab cd", True),
        ("exact", r"\boxed{2/4}", "1/2", False),
    ],
)
def test_other_verifiers(verifier, response, answer, correct):
    assert grade(response, answer, verifier).correct is correct


def test_an_unknown_verifier_is_an_error_of_the_config_but_not_of_the_grader():
    assert grade(r"\boxed{5}", "5", "vibes") == Grade(None, False, "unknown verifier 'vibes'")
    with pytest.raises(UsageError, match="verifier 'vibes' is unknown, it must be one of math, choice, exact"):
        check_verifier("vibes")


def test_the_version_names_math_verify():
    assert "math-verify-0." in GRADER_VERSION


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_published_answer_agrees_with_itself(path):
    problems = load_problems(str(path))
    grades = grade_many([(rf"Thus \boxed{{{p.answer}}}.", p.answer) for p in problems], deadline_s=DEADLINE_S)
    assert [p.id for p, g in zip(problems, grades, strict=True) if not g.correct] == []
