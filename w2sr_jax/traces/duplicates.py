"""Near-duplicates among many texts, in linear time and 256 bytes a text: MinHash with banding (Broder 1997; LSH).

Texts are near-duplicates when the estimated Jaccard similarity of their runs of 5 words is at least 0.8. The estimate
is the share of 64 minima that agree, so that its standard error is 0.05 there. A text of fewer words is one run.
"""

from __future__ import annotations

import zlib

import numpy as np

from w2sr_jax.data.contamination import words_of

RUN_WORDS, HASHES, BANDS, SIMILAR = 5, 64, 16, 0.8
_RUNS_AT_ONCE = 4096  # bounds the memory that one long text takes
_RNG = np.random.default_rng(20_505)
_ODD = (_RNG.integers(1, 2**63, HASHES, dtype=np.uint64) << np.uint64(1)) | np.uint64(1)
_SHIFT = _RNG.integers(0, 2**63, HASHES, dtype=np.uint64)
_MIX = _RNG.integers(1, 2**63, RUN_WORDS, dtype=np.uint64) | np.uint64(1)


def signature(text: str) -> np.ndarray:
    """The [HASHES] minima (uint32) of a text's runs of words."""
    hashed = np.array([zlib.crc32(word.encode()) for word in words_of(text)] or [0], dtype=np.uint64)
    if len(hashed) < RUN_WORDS:
        hashed = np.concatenate([hashed, np.zeros(RUN_WORDS - len(hashed), np.uint64)])
    count = len(hashed) - RUN_WORDS + 1
    runs = np.zeros(count, np.uint64)
    for i in range(RUN_WORDS):
        runs = (runs + hashed[i : i + count]) * _MIX[i]  # modulo 2**64
    lowest = np.full(HASHES, 2**32 - 1, np.uint32)
    for start in range(0, count, _RUNS_AT_ONCE):
        values = (runs[start : start + _RUNS_AT_ONCE, None] * _ODD + _SHIFT) >> np.uint64(32)
        lowest = np.minimum(lowest, values.min(axis=0).astype(np.uint32))
    return lowest


class NearDuplicates:
    """Signatures of texts as they come; the pairs are looked for at the end."""

    def __init__(self) -> None:
        self._signatures: list[np.ndarray] = []
        self._problems: list[int] = []
        self._numbers: dict[str, int] = {}  # problem -> its number

    def add(self, problem_id: str, text: str) -> None:
        self._problems.append(self._numbers.setdefault(problem_id, len(self._numbers)))
        self._signatures.append(signature(text))

    def count(self) -> dict[str, int]:
        """{"traces": that nearly repeat an earlier one, "other_problem": where that one answers another problem}.

        Each is compared with the first and with the one before it of every band's bucket, not with all: a bucket of
        a million copies costs two million comparisons.
        """
        if not self._signatures:
            return {"traces": 0, "other_problem": 0}
        found_NH, problems_N = np.stack(self._signatures), np.array(self._problems)
        repeats_N = np.zeros(len(found_NH), bool)
        other_N = np.zeros(len(found_NH), bool)
        for band_NB in np.split(found_NH, BANDS, axis=1):
            order = np.lexsort(band_NB.T)  # stable: within a bucket, earlier ones first
            same = np.all(band_NB[order[1:]] == band_NB[order[:-1]], axis=1)
            starts = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0))
            later = order[1:][same]
            for earlier in (order[:-1][same], order[starts[1:][same]]):
                alike = _similarity(found_NH, earlier, later) >= SIMILAR
                repeats_N[later[alike]] = True
                other_N[later[alike & (problems_N[earlier] != problems_N[later])]] = True
        return {"traces": int(repeats_N.sum()), "other_problem": int(other_N.sum())}


def _similarity(found_NH: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The share of equal minima of each pair."""
    pieces = [
        (found_NH[one[i : i + 65536]] == found_NH[other[i : i + 65536]]).mean(axis=1) for i in range(0, len(one), 65536)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0)
