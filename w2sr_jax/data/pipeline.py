"""The Grain pipeline of SFT: packed rows, reshuffled every epoch, batched, each process its part of every batch.

Grain moves row numbers only (range -> shuffle -> repeat -> batch); a row's arrays are laid out when its batch is
taken. Two properties follow. The state is the number of batches taken, the same on every process, so a run may be
resumed on another number of processes. A batch that starts near the end of an epoch takes its last rows from the
next one: every row is used exactly once per epoch, and all batches have one shape.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.data.chat import Example
from w2sr_jax.data.examples import load_examples
from w2sr_jax.data.pack import Batch, first_fit, pack_rows

__all__ = ["Batch", "Pipeline", "make_pipeline"]


def make_pipeline(
    config: DataConfig,
    tokenizer: Any,
    process_index: int = 0,
    process_count: int = 1,
    *,
    rows: Sequence[int] | None = None,
    model_dir: str | Path | None = None,
) -> Pipeline:
    """Reads, encodes and packs the traces of `config`; the same on every process, whatever their number.

    Args:
        process_index, process_count: this process gets that one of equal, consecutive shares of each batch.
        rows: of each batch, for this process, where that is not its share; as `core.mesh.local_rows` tells.
        model_dir: the student's directory, for its EOS (default: the tokenizer's).

    Raises:
        W2SRError: a file is missing, broken or empty, or no trace fits.
        UsageError: the batch cannot be split over the processes.
    """
    if config.batch_size % process_count:
        raise UsageError(
            f"config.data.batch_size: {config.batch_size} rows cannot be split over {process_count} processes"
        )
    if rows is None:
        share = config.batch_size // process_count
        rows = range(process_index * share, (process_index + 1) * share)
    examples, counts = load_examples(config, tokenizer, model_dir)
    return Pipeline(config, examples, counts, rows, pad_id=tokenizer.pad_token_id or 0)


class Pipeline(Iterator[Batch]):
    """An endless, checkpointable iterator of this process's rows of each global batch (numpy arrays).

    Attributes:
        num_examples: examples kept, in `num_rows` packed rows.
        row_examples: the most of one row, padding counted as one; 1 without packing, padded or not.
        dropped: counts of examples left out or cut, by reason; see `load_examples`.
        batch_tokens: of the last batch taken, padding excluded, over all processes.
        batch_context: how long the example is that a token of that batch belongs to, on average.
    """

    def __init__(
        self,
        config: DataConfig,
        examples: list[Example],
        dropped: dict[str, int],
        mine: Sequence[int],
        pad_id: int = 0,
    ):
        import grain  # seconds, which `w2sr sft --help` need not wait for

        lengths = [len(e.tokens) for e in examples]
        rows = packed(lengths, config.max_length) if config.packing else [[i] for i in range(len(examples))]
        row_tokens = np.array([sum(lengths[i] for i in row) for row in rows])

        row_squares = np.array([sum(lengths[i] ** 2 for i in row) for row in rows])

        def lay_out(batch: np.ndarray) -> tuple[Batch, int, float]:
            mine_now, tokens = [rows[batch[place]] for place in mine], int(row_tokens[batch].sum())
            context = float(row_squares[batch].sum()) / tokens
            return pack_rows(examples, mine_now, config.max_length, pad_id), tokens, context

        batches = (
            grain.MapDataset.range(len(rows))
            .shuffle(seed=int(np.random.SeedSequence(config.seed).generate_state(1)[0]))  # Grain takes 32 bits
            .repeat()  # shuffles anew in every epoch
            .batch(config.batch_size, drop_remainder=True)  # there is none: the stream has no end
            .map(lay_out)
        )
        # No reading threads: a row is laid out in microseconds, while the device works on the step before.
        self._batches = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
        self._fingerprint = _fingerprint(config, examples)
        self.num_examples = len(examples)
        self.num_rows = len(rows)
        self.row_examples = 1 + max(map(len, rows)) if config.packing else 1
        self.dropped = dropped
        self.batch_tokens, self.batch_context = 0, 0.0
        self._batch_size = config.batch_size

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch, self.batch_tokens, self.batch_context = next(self._batches)
        return batch

    def steps_for(self, epochs: float) -> int:
        """Batches that hold every row `epochs` times: at least one, unless there are none to pass.

        The last batch of an epoch is filled up by the next one, so only the last of all is rounded up.
        """
        return math.ceil(round(epochs * self.num_rows / self._batch_size, 9))

    def get_state(self) -> dict[str, Any]:
        """Where the iterator stands, as JSON values."""
        return {"fingerprint": self._fingerprint, "batches": self._batches.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues exactly where `get_state` was called, also in another process or on another number of them.

        Raises:
            W2SRError: the state belongs to other examples, or to another batch size, row length, packing or seed.
        """
        if state.get("fingerprint") != self._fingerprint:
            raise W2SRError(
                "data: the saved position belongs to other training data (the traces, tokenizer, template, "
                "max_length, batch_size, packing or seed changed); start in a new workdir"
            )
        self._batches.set_state(state["batches"])


def packed(lengths: list[int], capacity: int) -> list[list[int]]:
    """Rows of examples, as indices: the longest first, which leaves less room at the ends of rows."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [[order[i] for i in row] for row in first_fit([lengths[i] for i in order], capacity)]


def _fingerprint(config: DataConfig, examples: list[Example]) -> str:
    """A hash of all that decides which tokens stand in which batch."""
    packing = "longest first" if config.packing else config.packing
    digest = hashlib.sha256(repr((config.max_length, config.batch_size, packing, config.seed)).encode())
    for example in examples:
        digest.update(np.asarray([example.prompt_length, len(example.tokens)], np.int32).tobytes())
        digest.update(np.asarray(example.tokens, np.int32).tobytes())
    return digest.hexdigest()[:16]
