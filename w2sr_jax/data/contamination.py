r"""Whether training traces hold problems of a benchmark: shared n-grams of words.

Texts are compared as lower-case runs of letters and digits, so that spacing, punctuation and LaTeX braces do not hide
a copy. A benchmark problem of fewer than n words has no n-gram of its own (shorter ones, like "compute 1 2", would
overlap with everything); it counts only where a whole problem or response is the same text, and nowhere if it has no
word at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from w2sr_jax.core.records import Overlap, Problem, Trace

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """`$\\frac{1}{2}$ of It` -> frac, 1, 2, of, it."""
    return _WORD.findall(text.lower())


class Index:
    """The n-grams of benchmark problems.

    Args:
        benchmarks: (name, problems) of each.
        size: n, in words.
    """

    def __init__(self, benchmarks: Iterable[tuple[str, Sequence[Problem]]], size: int = 13):
        self.size = size
        self.short = 0  # problems of fewer than n words, which are compared whole
        self._grams: dict[str, tuple[str, str]] = {}  # n-gram -> (benchmark, problem id), the first that has it
        self._whole: dict[str, tuple[str, str]] = {}
        for name, problems in benchmarks:
            for problem in problems:
                words = words_of(problem.problem)
                if len(words) < size:
                    self.short += 1
                    if words:
                        self._whole.setdefault(" ".join(words), (name, problem.id))
                for gram in self._of(words):
                    self._grams.setdefault(gram, (name, problem.id))

    def _of(self, words: list[str]) -> Iterator[str]:
        return (" ".join(words[i : i + self.size]) for i in range(len(words) - self.size + 1))

    def find(self, text: str) -> tuple[str, str, str] | None:
        """(benchmark, problem id, n-gram) of the first n-gram of `text` that a benchmark problem has too."""
        words = words_of(text)
        for gram in self._of(words):
            if found := self._grams.get(gram):
                return *found, gram
        whole = " ".join(words)
        return (*self._whole[whole], whole) if whole in self._whole else None

    def overlap(self, problem: Problem, trace: Trace) -> Overlap | None:
        """Where a trace, or the problem that it answers, holds a benchmark problem's words; the problem comes first."""
        for part, text in (("problem", problem.problem), ("response", trace.response)):
            if found := self.find(text):
                benchmark, identifier, words = found
                return Overlap(
                    problem_id=trace.problem_id,
                    sample=trace.sample,
                    part=part,  # type: ignore[arg-type]
                    benchmark=benchmark,
                    benchmark_problem=identifier,
                    words=words,
                )
        return None
