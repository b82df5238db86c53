"""Problems in, graded groups out: what GRPO asks of an engine.

Shape letters: P problems, G group (responses to one problem).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from w2sr_jax.core import processes
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import Problem
from w2sr_jax.data.chat import render
from w2sr_jax.engine.base import Completion, Generator, Sampling
from w2sr_jax.engine.open import request_seed
from w2sr_jax.grading.ahead import GradingAhead
from w2sr_jax.grading.pool import GraderPool


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """One problem's responses."""

    problem: Problem
    prompt: list[int]
    completions: list[Completion]
    correct_G: np.ndarray  # float32, 1 correct, 0 not

    @property
    def mixed(self) -> bool:
        """Some right, some wrong: the only groups that teach something."""
        return bool(0.0 < self.correct_G.mean() < 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Asker:
    """Asks an engine, and grades each answer while the next ones are being written.

    Args:
        waiting: entered while the last grades are waited for.
    """

    engine: Generator
    tokenizer: Any
    template: str
    pool: GraderPool
    waiting: Callable[[], AbstractContextManager[Any]] = nullcontext

    def ask(self, problems: Sequence[Problem], sampling: Sampling, salt: str) -> list[Group]:
        """One group a problem.

        Args:
            problems: one that stands here twice gets two different groups.
            salt: with sampling.seed and the problem's id, it decides the random stream.
        """
        prompts, seeds, times = [], [], Counter[str]()
        for problem in problems:
            prompts.append(self.encode(problem))
            again = f":{times[problem.id]}" if times[problem.id] else ""
            seeds.append(request_seed(sampling.seed, f"{salt}:{problem.id}{again}"))
            times[problem.id] += 1

        with GradingAhead(self.pool) as grading:

            def finished(number: int, sample: int, completion: Completion) -> None:
                place, problem = number * sampling.n + sample, problems[number]
                # Each process grades its share, and all go on with the same verdicts, deadlines that ran out included.
                if place % processes.count() == processes.index():
                    grading.put(place, (completion.text, problem.answer), problem.verifier)

            answers = self.engine.generate(prompts, sampling, seeds=seeds, on_finished=finished)
            if failed := sum(one.finish_reason == "failed" for group in answers for one in group):
                raise W2SRError(
                    f"{failed} responses failed: the engine died of their requests; see its log lines above"
                )
            with self.waiting():
                correct = processes.interleave("verdicts", [grade.correct for grade in grading.results()])
        correct_PG = np.array(correct, np.float32).reshape(len(problems), -1)
        return [Group(*parts) for parts in zip(problems, prompts, answers, correct_PG)]

    def encode(self, problem: Problem) -> list[int]:
        """The prompt's token ids."""
        return self.tokenizer.encode(render(self.template, problem.problem, self.tokenizer), add_special_tokens=False)

    def pass_at_1(self, problems: Sequence[Problem], sampling: Sampling) -> float:
        """Greedy Pass@1; of `sampling` the limits count."""
        greedy = dataclasses.replace(sampling, temperature=0.0, n=1)
        return float(np.mean([group.correct_G for group in self.ask(problems, greedy, "validation")]))


def sample_groups(
    ask: Callable[[int, int], list[Group]], wanted: int, rounds: int = 0
) -> tuple[list[Group], list[Group]]:
    """`wanted` groups, mixed ones where possible.

    Args:
        ask: (how many, which attempt) -> groups of the next problems.
        rounds: with dynamic sampling (DAPO, arXiv 2503.14476), groups that are all right or all wrong are replaced by
            those of further problems in at most so many more rounds. The last such groups fill what is then missing.

    Returns:
        (the groups, those that were asked for and left out).
    """
    if not rounds:
        return ask(wanted, 0), []
    kept: list[Group] = []
    spare: list[Group] = []
    for attempt in range(1 + rounds):
        for group in ask(wanted - len(kept), attempt):
            (kept if group.mixed else spare).append(group)
        if len(kept) >= wanted:
            break
    chosen = kept + spare[::-1]
    return chosen[:wanted], chosen[wanted:]
