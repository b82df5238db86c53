"""Domains outside mathematics: reasoning-gym's tasks and multiple choice, through the stages that grade."""

import dataclasses
import json
import shutil

import pytest

from w2sr_jax.core import gym
from w2sr_jax.core.config import SamplingConfig
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.records import GradedTrace, Problem, RecordError, Trace
from w2sr_jax.core.stage_config import DistillConfig, EvaluateConfig
from w2sr_jax.core.trace_config import FilterConfig
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.grading.grade import grade
from w2sr_jax.grading.pool import GraderPool


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return load_problems("gym:letter_counting:6:3")


def test_a_source_gives_the_same_problems_whenever_it_is_read(problems):
    gym.dataset.cache_clear()
    assert load_problems("gym:letter_counting:6:3") == problems
    assert load_problems("gym:letter_counting:6:3", limit=2) == problems[:2]
    assert [p.id for p in problems] == [f"gym/letter_counting/3/{i}" for i in range(6)]
    assert problems[4].verifier == "gym:letter_counting:6:3:4"
    assert load_problems("gym:letter_counting:6:4") != problems


def test_only_a_full_score_counts_as_right(problems):
    first, scorer = problems[0], gym.dataset("letter_counting", 6, 3)
    junk = f"{first.answer} or so"
    assert 0 < scorer.score_answer(answer=junk, entry=scorer[0]) < 1  # partial credit, which is none here
    assert not grade(rf"\boxed{{{junk}}}", first.answer, first.verifier).correct
    assert grade(rf"\boxed{{{first.answer}}}", first.answer, first.verifier).correct


def test_each_problem_is_graded_by_its_own_scorer(problems):
    with GraderPool() as pool:
        right = pool.grade_many(
            [(rf"\boxed{{{p.answer}}}", p.answer) for p in problems], [p.verifier for p in problems]
        )
        wrong = pool.grade_many([(r"\boxed{977}", p.answer) for p in problems], [p.verifier for p in problems])
        none = pool.grade_many([("no box", "3")], [problems[0].verifier])
    assert all(g.correct for g in right)
    assert not any(g.correct for g in [*wrong, *none])


def test_a_scorer_that_raises_is_a_wrong_answer_with_its_reason(problems):
    # This task's scorer takes every word between its operators for a number.
    (one,) = load_problems("gym:prime_factorization:1:0")
    with pytest.raises(ValueError, match="invalid literal for int"):
        gym.is_solved("1 2", one.verifier)
    with GraderPool() as pool:
        (found,) = pool.grade_many([(r"\boxed{1 2}", one.answer)], [one.verifier])
        (after,) = pool.grade_many([(rf"\boxed{{{problems[0].answer}}}", problems[0].answer)], [problems[0].verifier])
    assert (found.extracted, found.correct) == ("1 2", False)
    assert found.error == "ValueError: invalid literal for int() with base 10: '1 2'"
    assert (after.correct, after.error) == (True, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gym:letter_count", "no such task; did you mean letter_counting"),
        ("gym:letter_counting:0", r"expected gym:TASK\[:COUNT\[:SEED\]\]"),
        ("gym:a b", r"expected gym:TASK"),
    ],
)
def test_a_source_that_cannot_be_is_named(problems, source, message):
    with pytest.raises(UsageError, match=message):
        load_problems(source)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    gym.dataset.cache_clear()
    with pytest.raises(UsageError, match=r"needs reasoning-gym .* run `make setup EXTRAS=domains`"):
        load_problems("gym:letter_counting")


MMLU = {"question": "Which is a planet?", "choices": ["Sun", "Mars", "Moon"], "answer": 1, "subject": "astronomy"}
ARC = {"id": "q7", "question": "Hot?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_multiple_choice_is_read_and_graded_by_letter(tmp_path):
    (one,) = load_problems(write(tmp_path / "mmlu.jsonl", MMLU))
    assert one.problem == "Which is a planet?\n(A) Sun\n(B) Mars\n(C) Moon"
    assert (one.answer, one.verifier, one.id) == ("B", "choice", "multiple_choice/0")
    (other,) = load_problems(write(tmp_path / "arc.jsonl", ARC))
    assert (other.answer, other.id) == ("B", "multiple_choice/q7")
    assert grade(r"\boxed{(B) Mars}", one.answer, one.verifier).correct
    assert not grade(r"\boxed{A}", one.answer, one.verifier).correct


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 3}, "answer: names none of 3 choices"),
        ({"answer": "BC"}, "answer: names none of 3 choices"),
        ({"answer": ""}, "answer: names none of 3 choices"),
        ({"choices": ["one"]}, "choices: expected 2 to 8"),
    ],
)
def test_choices_that_cannot_be_are_named(tmp_path, change, message):
    with pytest.raises(RecordError, match=message):
        load_problems(write(tmp_path / "mmlu.jsonl", MMLU | change))


@pytest.fixture(params=["gym", "choice"])
def domain(request, tmp_path, problems):
    """(problems as a source, the same as a list) of a domain whose verifier is no mathematics."""
    if request.param == "gym":
        return "gym:letter_counting:6:3", problems
    path = write(tmp_path / "mmlu.jsonl", *(MMLU | {"question": f"Which, {i}?", "answer": i % 3} for i in range(6)))
    return path, load_problems(path)


@pytest.fixture
def model(files, tmp_path) -> str:
    """The tiny model with room for prompts of real text."""
    shutil.copytree(files.model, tmp_path / "model")
    for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        path = tmp_path / "model" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: 256}))
    return str(tmp_path / "model")


def test_the_stages_take_a_domain_as_they_take_mathematics(domain, model, files, decode, one_device, tmp_path):
    from w2sr_jax.stages import distill, evaluate, grpo
    from w2sr_jax.stages import filter as filter_stage

    source, found = domain
    options = {"template": "plain", "decode": decode, "mesh": one_device}
    # A model of the embedded task answers nonsense: these stages are about who grades it.
    short = SamplingConfig(max_tokens=3)
    distill.main(DistillConfig(model=model, problems=source, limit=2, sampling=short, **options), str(tmp_path / "d"))
    assert len(read_jsonl(tmp_path / "d/traces.jsonl", Trace)) == 2
    traces = [
        Trace(
            problem_id=p.id,
            sample=0,
            response=rf"\boxed{{{p.answer if i % 2 else 'no'}}}",
            response_tokens=3,
            finish_reason="stop",
            teacher="t",
        )
        for i, p in enumerate(found)
    ]
    write_jsonl(tmp_path / "traces.jsonl", traces)
    config = FilterConfig(problems=source, traces=str(tmp_path / "traces.jsonl"))
    counts = filter_stage.main(config, str(tmp_path / "f"))
    assert counts["graded"] == {"all": 6, "correct": 3, "incorrect": 3}
    assert len(read_jsonl(tmp_path / "f/correct.jsonl", GradedTrace)) == 3
    result = evaluate.main(EvaluateConfig(model=model, problems=source, sampling=short, **options), str(tmp_path / "e"))
    assert result["n"] == 6
    policy = files.grpo(model, problems=source, steps=1, sampling=SamplingConfig(max_tokens=3, temperature=1.0, n=2))
    grpo.main(dataclasses.replace(policy, validation=source, validate_every=1), str(tmp_path / "g"))
    assert (tmp_path / "g/export/config.json").is_file()
