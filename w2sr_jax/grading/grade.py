r"""`grade(response, answer)`: the one grader of filter, reward and evaluation.

It never raises and never hangs, whatever a model wrote. Strings, numbers and lists of them are decided in this process
in microseconds; only what needs computer algebra goes to a worker process, which is killed at its deadline.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import threading
from collections.abc import Sequence

from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.grading.verdict import VERIFIERS, Grade, check_verifier, decide

__all__ = ["GRADER_VERSION", "VERIFIERS", "Grade", "GraderPool", "check_verifier", "grade", "grade_many"]

GRADER_VERSION = f"w2sr-6+math-verify-{importlib.metadata.version('math-verify')}"

_shared = GraderPool(workers=1)
_shared_lock = threading.Lock()
atexit.register(_shared.close)


def grade(response: str, answer: str, verifier: str = "math") -> Grade:
    """Grades one response. It may keep one idle worker process until this process ends; `grade_many` keeps none.

    Args:
        response: what the model wrote, in full.
        answer: the published answer.
        verifier: one of VERIFIERS; an unknown one gives an incorrect Grade with its error set.
    """
    _, decided = decide(response, answer, verifier)
    if decided is not None:
        return decided
    with _shared_lock:
        return _shared.grade_many([(response, answer)], [verifier])[0]


def grade_many(pairs: Sequence[tuple[str, str]], workers: int = 2, deadline_s: float = 10.0) -> list[Grade]:
    """One Grade for each (response, answer); no process is left afterwards."""
    with GraderPool(workers, deadline_s) as pool:
        return pool.grade_many(pairs)
