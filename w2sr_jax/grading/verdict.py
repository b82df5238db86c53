r"""What is decided without a process: finding the answer, exact comparison, and what no grader should evaluate."""

from __future__ import annotations

import dataclasses
import re

from w2sr_jax.core import gym
from w2sr_jax.core.errors import UsageError
from w2sr_jax.grading.answers import extract
from w2sr_jax.grading.equivalence import compare_exactly, equivalent, is_astronomical
from w2sr_jax.grading.normal import key, unwrap_text

# math: mathematical equality; choice: the letter of an option; exact: the same text, spacing aside. Beside these
# gym:TASK:COUNT:SEED:INDEX is reasoning-gym's own scorer of that entry (core/gym.py).
VERIFIERS = ("math", "choice", "exact")
# A letter that is told from what follows; `A or B`, `C12` and `A.5` are no choice of one.
_LABEL = re.compile(r"\s*(?:\([A-Za-z]\)|[A-Za-z][).:](?=[\s~\\]|$))")
MAX_ANSWER_CHARS = 2000  # the longest published answer of the six benchmarks has 204


@dataclasses.dataclass(frozen=True, slots=True)
class Grade:
    """The answer found in a response (None: none), whether it is right, and what kept the grader from deciding."""

    extracted: str | None
    correct: bool
    error: str | None = None


class _Undecided(Exception):
    """Only computer algebra can tell."""


def check_verifier(name: str) -> None:
    """Raises UsageError for a verifier that does not exist; stages call it before they grade."""
    if gym.is_verifier(name):
        task, count, seed, _ = name.removeprefix(gym.PREFIX).split(":")
        gym.dataset(task, int(count), int(seed))
    elif name not in VERIFIERS:
        raise UsageError(f"verifier {name!r} is unknown, it must be one of {', '.join(VERIFIERS)}")


def decide(response: str, answer: str, verifier: str) -> tuple[str | None, Grade | None]:
    """(extracted, grade), or (extracted, None) where a worker process has to compare `extracted` with the answer."""
    if not isinstance(response, str) or not isinstance(answer, str):
        return None, Grade(None, False, "response and answer must be text")
    scored = gym.is_verifier(verifier)
    if verifier not in VERIFIERS and not scored:
        return None, Grade(None, False, f"unknown verifier {verifier!r}")
    extracted = extract(response)
    if extracted is None:
        return None, Grade(None, False)
    if scored:
        return extracted, None if len(extracted) <= MAX_ANSWER_CHARS else Grade(extracted, False, "answer too long")
    if extracted == answer and extracted:
        return extracted, Grade(extracted, True)
    if len(extracted) > MAX_ANSWER_CHARS or len(answer) > MAX_ANSWER_CHARS:
        long = max(len(extracted), len(answer))
        return extracted, Grade(extracted, False, f"answer of {long} characters, more than {MAX_ANSWER_CHARS}")
    if verifier != "math":
        same = key(extracted) == key(answer) if verifier == "exact" else _choice(extracted) == _choice(answer)
        return extracted, Grade(extracted, bool(key(extracted)) and same)
    if extracted.isdecimal() and answer.isdecimal() and extracted.isascii() and answer.isascii():
        return extracted, Grade(extracted, extracted.lstrip("0") == answer.lstrip("0"))
    if compare_exactly(extracted, answer):
        return extracted, Grade(extracted, True)
    if not key(extracted):
        return extracted, Grade(extracted, False)
    if is_astronomical(extracted):
        return extracted, Grade(extracted, False, "a power tower too large to evaluate")
    try:
        return extracted, Grade(extracted, equivalent(extracted, answer, _no_leaf))
    except _Undecided:
        return extracted, None


def _no_leaf(given: str, gold: str) -> bool:
    raise _Undecided


def _choice(text: str) -> str:
    """`(C) 12`, `C) 12`, `C. 12`, `C: 12`, `C.`, `\\text{C}`, `\\textbf{(C)} 12` -> `C`."""
    text = unwrap_text(text)
    labelled = _LABEL.match(text)
    head = key(labelled[0] if labelled else text)
    return head.strip("()").rstrip(".):").upper()
