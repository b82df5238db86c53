"""Problems in, graded groups out, with an engine that answers by rote."""

import dataclasses
import threading

import numpy as np
import pytest

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import Problem
from w2sr_jax.engine.base import Completion, Sampling
from w2sr_jax.engine.groups import Asker, Group, sample_groups
from w2sr_jax.grading.pool import GraderPool

SAMPLING = Sampling(max_tokens=4, temperature=1.0, n=2, seed=5)


class Letters:
    """A tokenizer of one token a character."""

    bos_token_id = None

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [ord(c) for c in text]


@dataclasses.dataclass
class Rote:
    """Sample 0 answers with the prompt's last character, sample 1 with nothing; keeps what it was asked."""

    asked: list = dataclasses.field(default_factory=list)

    def generate(self, prompts, sampling, *, seeds=None, on_finished=None):
        self.asked += zip(prompts, seeds)
        answers = []
        for number, prompt in enumerate(prompts):
            texts = (f"\\boxed{{{chr(prompt[-1])}}}", "nothing")[: sampling.n]
            answers.append([Completion(text, [1, 2], [-1.0, -1.0], "stop") for text in texts])
            for sample, one in enumerate(answers[-1]):
                on_finished(number, sample, one)
        return answers


@pytest.fixture
def asker():
    with GraderPool() as pool:
        yield Asker(Rote(), Letters(), "plain", pool)


def problem(number, answer=None):
    return Problem(id=f"p{number}", problem=f"What is {number}", answer=str(number if answer is None else answer))


def test_groups_hold_prompts_answers_and_grades_in_the_order_asked(asker):
    first, second = asker.ask([problem(3), problem(4, answer=7)], SAMPLING, "0")
    assert (first.problem.id, second.problem.id) == ("p3", "p4")
    assert "".join(map(chr, first.prompt)) == "What is 3"
    np.testing.assert_array_equal([first.correct_G, second.correct_G], [[1, 0], [0, 0]])
    assert (first.mixed, second.mixed) == (True, False)


def test_the_random_stream_follows_from_seed_salt_and_problem_alone(asker):
    asker.ask([problem(1), problem(2)], SAMPLING, "0")
    asker.ask([problem(2)], SAMPLING, "0")
    asker.ask([problem(2)], SAMPLING, "1")
    asker.ask([problem(2)], dataclasses.replace(SAMPLING, seed=6), "0")
    one, two, two_again, other_salt, other_seed = [seed for _, seed in asker.engine.asked]
    assert two == two_again
    assert len({one, two, other_salt, other_seed}) == 4


def test_a_problem_that_is_asked_twice_at_once_gets_two_random_streams(asker):
    asker.ask([problem(1), problem(1), problem(1)], SAMPLING, "0")
    assert len({seed for _, seed in asker.engine.asked}) == 3


def test_answers_are_graded_while_others_are_written():
    class Watched(GraderPool):
        graded = threading.Event()

        def grade_many(self, *args):
            grades = super().grade_many(*args)
            self.graded.set()
            return grades

    class Slow(Rote):
        """Writes no second answer before the first is graded."""

        def generate(self, prompts, sampling, *, seeds=None, on_finished=None):
            def first_graded(*finished):
                on_finished(*finished)
                assert Watched.graded.wait(60)

            return super().generate(prompts, sampling, seeds=seeds, on_finished=first_graded)

    with Watched() as pool:
        groups = Asker(Slow(), Letters(), "plain", pool).ask([problem(3), problem(4, answer=7)], SAMPLING, "0")
    np.testing.assert_array_equal([group.correct_G for group in groups], [[1, 0], [0, 0]])


def test_a_grader_that_cannot_start_is_an_error_of_the_one_who_asks(asker, monkeypatch):
    monkeypatch.setattr(asker.pool, "grade_many", lambda *args: (_ for _ in ()).throw(W2SRError("grading: no process")))
    with pytest.raises(W2SRError, match="no process"):
        asker.ask([problem(1)], SAMPLING, "0")


def test_validation_is_greedy_and_asks_once(asker):
    assert asker.pass_at_1([problem(1), problem(2), problem(3, answer=8), problem(4)], SAMPLING) == 0.75
    assert len(asker.engine.asked) == 4


def group(number, *correct):
    return Group(problem(number), [1], [], np.array(correct, np.float32))


def script(*rounds):
    """An `ask` that gives the groups of one round after the other, and notes how many were wanted."""
    wanted = []

    def ask(count, attempt):
        assert attempt == len(wanted)
        wanted.append(count)
        return list(rounds[attempt])

    return ask, wanted


def ids(groups):
    return [one.problem.id for one in groups]


def test_without_dynamic_sampling_every_group_is_kept():
    ask, wanted = script([group(0, 1, 1), group(1, 0, 1)])
    chosen, left_out = sample_groups(ask, 2)
    assert (ids(chosen), left_out, wanted) == (["p0", "p1"], [], [2])


def test_dynamic_sampling_replaces_groups_without_variance():
    ask, wanted = script(
        [group(0, 1, 1), group(1, 0, 1), group(2, 0, 0)], [group(3, 1, 0), group(4, 1, 1)], [group(5, 0, 1)]
    )
    chosen, left_out = sample_groups(ask, 3, rounds=5)
    assert ids(chosen) == ["p1", "p3", "p5"]
    assert wanted == [3, 2, 1]
    assert sorted(ids(left_out)) == ["p0", "p2", "p4"]


def test_dynamic_sampling_gives_up_and_fills_with_the_last_ones():
    ask, wanted = script([group(0, 1, 1), group(1, 0, 1)], [group(2, 0, 0)])
    chosen, left_out = sample_groups(ask, 2, rounds=1)
    assert ids(chosen) == ["p1", "p2"]
    assert ids(left_out) == ["p0"]
    assert wanted == [2, 1]
