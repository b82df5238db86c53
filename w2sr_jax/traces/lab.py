"""What a set of traces is like: length, steps, reflection, health, repetition, correctness, and surprise.

A set is read once, line by line; what is kept of a trace is a few numbers and the 256 bytes of its MinHash signature.
Samples of one problem are not independent, so that intervals over traces are a little too narrow where there are many.

How many tokens a trace has that was changed on purpose is not known (its record has those of the original): a set with
such traces has characters only. Their flags are those of the text: a finish_reason that the change itself set is none.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import EditedTrace, FinishReason, GradedTrace, Trace
from w2sr_jax.core.trace_config import HYGIENE_FLAGS
from w2sr_jax.data.contamination import words_of
from w2sr_jax.grading import hygiene
from w2sr_jax.traces import markers
from w2sr_jax.traces.duplicates import NearDuplicates
from w2sr_jax.traces.steps import steps

Key = tuple[str, str, int]  # teacher, problem, sample
BINS = 5  # of length, with about as many traces each
MOST_LEVELS = 12


class Study:
    """Counts of the traces of one set.

    Args:
        levels: problem id -> level.
        surprisals: mean negative log-likelihood under the student, by trace.
    """

    def __init__(self, levels: Mapping[str, str], surprisals: Mapping[Key, float] | None = None):
        self._levels, self._surprisals = levels, surprisals
        self._tokens, self._characters, self._steps = array("l"), array("l"), array("l")
        self._right = array("b")  # 1, 0, or -1 for a trace whose correctness is not known
        self._surprise = array("d")
        self._problems: set[str] = set()
        self._flags: Counter[str] = Counter()
        self._markers: Counter[str] = Counter()  # traces that hold it
        self._by_level: dict[str, list[int]] = {}
        self._reflective = self._unhealthy = self._marks = self._words = self._failed = self._edited = 0
        self._duplicates = NearDuplicates()

    def add(self, trace: Trace, right: bool | None = None) -> None:
        """Counts a trace.

        Args:
            right: whether its answer is; None where that is not known but for the trace's own grade.
        """
        if trace.finish_reason == "failed":  # the engine died of it: there is no text
            self._failed += 1
            return
        text = trace.response
        self._edited += isinstance(trace, EditedTrace) and bool(trace.edit)
        self._problems.add(trace.problem_id)
        self._tokens.append(trace.response_tokens)
        self._characters.append(len(text))
        self._steps.append(len(steps(text)))
        self._words += len(words_of(text))
        marks = markers.count(text)
        self._markers.update(marks.keys())
        self._marks += sum(marks.values())
        self._reflective += bool(marks)
        raised = trace.hygiene if isinstance(trace, GradedTrace) else hygiene.flags(text, _finish_reason(trace))
        self._flags.update(raised)
        self._unhealthy += bool(raised)
        right = trace.correct if isinstance(trace, GradedTrace) else right
        self._right.append(-1 if right is None else int(right))
        level = self._levels.get(trace.problem_id)
        if right is not None and level is not None:
            counts = self._by_level.setdefault(level, [0, 0])
            counts[0] += self._right[-1]
            counts[1] += 1
        key = (trace.teacher, trace.problem_id, trace.sample)
        if self._surprisals is not None and key in self._surprisals:
            self._surprise.append(self._surprisals[key])
        self._duplicates.add(trace.problem_id, text)

    def result(self) -> dict[str, Any]:
        """The counts as JSON values."""
        right = np.array(self._right)
        levels = self._by_level if len(self._by_level) <= MOST_LEVELS else {}
        return {
            "traces": len(self._characters),
            "problems": len(self._problems),
            "failed": self._failed,
            "edited": self._edited,
            "tokens": None if self._edited else distribution(self._tokens),
            "characters": distribution(self._characters),
            "steps": distribution(self._steps),
            "words": self._words,
            "markers": {name: self._markers[name] for name in markers.MARKERS},
            "marks": self._marks,
            "reflective": self._reflective,
            "hygiene": {flag: self._flags[flag] for flag in HYGIENE_FLAGS},
            "unhealthy": self._unhealthy,
            "near_duplicates": self._duplicates.count(),
            "graded": int((right >= 0).sum()),
            "right": int((right == 1).sum()),
            "by_level": {level: levels[level] for level in sorted(levels, key=_natural)},
            "by_length": [] if self._edited else by_length(np.array(self._tokens), right),
            "surprisal": distribution(self._surprise) if len(self._surprise) else None,
        }


def study(
    traces: Iterable[tuple[Trace, bool | None]],
    levels: Mapping[str, str],
    surprisals: Mapping[Key, float] | None = None,
    name: str = "",
) -> dict[str, Any]:
    """What is found in a set.

    Args:
        traces: each with whether it is right, see traces/grades.py.

    Raises:
        W2SRError: there is no trace in it.
    """
    found = Study(levels, surprisals)
    for trace, right in traces:
        found.add(trace, right)
    result = found.result()
    if not result["traces"]:
        raise W2SRError(f"{name}: holds no traces")
    return result


def _finish_reason(trace: Trace) -> FinishReason:
    return trace.was_finish_reason if isinstance(trace, EditedTrace) else trace.finish_reason


def distribution(values: Any) -> dict[str, Any]:
    """Mean with its 95 % interval (normal), the 10th, 50th and 90th percentile and the largest."""
    found = np.array(values, dtype=float)
    half = 1.96 * float(found.std(ddof=1)) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    mean = float(found.mean()) if len(found) else 0.0
    low, middle, high = (float(q) for q in np.quantile(found, [0.1, 0.5, 0.9])) if len(found) else (0.0, 0.0, 0.0)
    return {
        "mean": mean,
        "interval": [mean - half, mean + half],
        "p10": low,
        "p50": middle,
        "p90": high,
        "max": float(found.max()) if len(found) else 0.0,
    }


def by_length(tokens: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Right and graded traces in up to BINS bins of length, about as many traces in each; none for ungraded ones."""
    tokens, right = tokens[right >= 0], right[right >= 0]
    if not len(tokens):
        return []
    edges = np.unique(np.quantile(tokens, np.linspace(0, 1, BINS + 1)))
    bins = np.clip(np.searchsorted(edges, tokens, side="right") - 1, 0, max(0, len(edges) - 2))
    return [
        {
            "from": int(tokens[bins == i].min()),
            "to": int(tokens[bins == i].max()),
            "mean": float(tokens[bins == i].mean()),
            "right": int(right[bins == i].sum()),
            "graded": int((bins == i).sum()),
        }
        for i in range(max(1, len(edges) - 1))
        if (bins == i).any()
    ]


def trace_file(path: str) -> Path:
    """A trace file, or the one of a workdir: filter's all.jsonl, else traces.jsonl.

    Raises:
        W2SRError: there is none.
    """
    place = Path(path)
    for found in (place, place / "all.jsonl", place / "traces.jsonl"):
        if found.is_file():
            return found
    raise W2SRError(f"{path}: neither a trace file nor the workdir of distill, filter or transform")


def _natural(level: str) -> tuple[float, str]:
    """`10` after `9`, `Level 2` by its name."""
    return (float(level) if level.replace(".", "", 1).isdigit() else math.inf, level)
