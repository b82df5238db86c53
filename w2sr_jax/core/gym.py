"""reasoning-gym's tasks: problems without number, each with a scorer. Needs the `domains` extra.

An entry is known by TASK:COUNT:SEED:INDEX alone: whoever needs its problem or its scorer generates it again.
"""

from __future__ import annotations

import difflib
import functools
import re
import warnings
from typing import Any

from w2sr_jax.core.errors import UsageError

PREFIX = "gym:"
COUNT, SEED = 200, 0  # where `gym:TASK` does not say
_SOURCE = re.compile(r"gym:([a-z0-9_]+)(?::(\d{1,7}))?(?::(\d{1,9}))?")
_VERIFIER = re.compile(r"gym:([a-z0-9_]+):(\d{1,7}):(\d{1,9}):(\d{1,7})")


def parse_source(source: str) -> tuple[str, int, int]:
    """`gym:TASK[:COUNT[:SEED]]` -> (task, count, seed).

    Raises:
        UsageError: it is not written like that.
    """
    match = _SOURCE.fullmatch(source)
    if match is None or match[2] == "0":
        raise UsageError(f"{source!r}: expected gym:TASK[:COUNT[:SEED]], as in gym:letter_counting:100:7")
    return match[1], int(match[2] or COUNT), int(match[3] or SEED)


def verifier_of(task: str, count: int, seed: int, index: int) -> str:
    """The verifier that is an entry's own scorer."""
    return f"{PREFIX}{task}:{count}:{seed}:{index}"


def is_verifier(name: str) -> bool:
    return _VERIFIER.fullmatch(name) is not None


@functools.lru_cache(maxsize=16)
def dataset(task: str, count: int, seed: int) -> Any:
    """The task's generator.

    Raises:
        UsageError: reasoning-gym is not installed, or has no such task.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about sources of its dependencies
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UsageError(f"gym:{task}: needs reasoning-gym ({error}); run `make setup EXTRAS=domains`") from None
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(f"gym:{task}: reasoning-gym has no such task{hint}")
    return reasoning_gym.create_dataset(task, size=count, seed=seed)


def entries_of(verifier: str) -> tuple[Any, int]:
    """(the generator that a verifier names, the index of its entry).

    Raises:
        UsageError: it names none.
    """
    match = _VERIFIER.fullmatch(verifier)
    if match is None:
        raise UsageError(f"verifier {verifier!r}: expected gym:TASK:COUNT:SEED:INDEX")
    return dataset(match[1], int(match[2]), int(match[3])), int(match[4])


def is_solved(answer: str, verifier: str) -> bool:
    """Whether the entry's scorer gives 1.0, and nothing less: scorers give partial credit to junk.

    May raise whatever a scorer raises, and may hang: graders call it in a process that can be killed.
    """
    entries, index = entries_of(verifier)
    return float(entries.score_answer(answer=answer, entry=entries[index])) == 1.0
