"""Problems that reasoning-gym generates: the source `gym:TASK[:COUNT[:SEED]]`."""

from __future__ import annotations

from w2sr_jax.core import gym
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import Problem


def generate(source: str) -> list[Problem]:
    """The problems of a task, each verified by its own scorer. The same source gives the same problems.

    An entry whose published answer is no text has its scorer's opinion only; `answer` then says so.

    Raises:
        UsageError: the source is malformed, or reasoning-gym or the task is missing.
        W2SRError: the task's generator fails.
    """
    task, count, seed = gym.parse_source(source)
    entries = gym.dataset(task, count, seed)
    problems = []
    for index in range(count):
        try:
            entry = entries[index]
        except Exception as error:  # whatever a generator raises
            raise W2SRError(f"{source}: problem {index} cannot be generated: {error}") from None
        answer = entry["answer"]
        problems.append(
            Problem(
                id=f"gym/{task}/{seed}/{index}",
                problem=entry["question"],
                answer="(the scorer decides)" if answer is None else str(answer),
                source=f"gym/{task}",
                verifier=gym.verifier_of(task, count, seed, index),
            )
        )
    return problems
