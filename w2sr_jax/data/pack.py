"""Packing: several examples in a row, with segment ids and restarting positions, so that none sees another.

The layout of a row of T tokens, for examples of 3 and 2 tokens (p prompt, r response, e closing token):

    tokens      p r e p e 0
    targets     r e 0 e 0 0
    loss_mask   1 1 0 1 0 0     1 where the target is a response or closing token
    positions   0 1 2 0 1 0
    segment_ids 1 1 1 2 2 0     0 is padding
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.data.chat import Example


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one SFT step, as numpy arrays from the pipeline and as jax arrays in the step."""

    tokens_BT: np.ndarray | jax.Array  # int32
    targets_BT: np.ndarray | jax.Array  # int32; [b, t] is tokens_BT[b, t + 1] within a segment, 0 elsewhere
    loss_mask_BT: np.ndarray | jax.Array  # float32; 1 where targets_BT[b, t] is predicted from tokens_BT[b, : t + 1]
    positions_BT: np.ndarray | jax.Array  # int32; from 0 in every segment
    segment_ids_BT: np.ndarray | jax.Array  # int32; from 1 in every row, 0 is padding


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Puts each length, in order, into the first bin that has room for it. Deterministic.

    The bins' free space lies in a tree whose inner nodes hold the maximum below them, so finding the first bin with
    room takes log2(n) steps: 100,000 examples take about a second.

    Returns:
        The bins, as lists of indices into `lengths`; at most twice as many as the best packing has.

    Raises:
        W2SRError: a length is below 1 or above the capacity.
    """
    leaves = 1
    while leaves < len(lengths):
        leaves *= 2
    free = [capacity] * (2 * leaves)  # node k has children 2k and 2k+1; bin b is leaf leaves+b
    bins: list[list[int]] = []
    for index, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            raise W2SRError(f"packing: example {index} has {length} tokens, a row holds 1 to {capacity}")
        node = 1
        while node < leaves:
            node = 2 * node if free[2 * node] >= length else 2 * node + 1
        if node - leaves == len(bins):
            bins.append([])
        bins[node - leaves].append(index)
        free[node] -= length
        while node > 1:
            node //= 2
            largest = max(free[2 * node], free[2 * node + 1])
            if free[node] == largest:
                break
            free[node] = largest
    return bins


def pack_rows(examples: Sequence[Example], rows: Sequence[Sequence[int]], max_length: int, pad_id: int = 0) -> Batch:
    """Lays out rows of examples.

    Args:
        rows: per row, the indices of its examples, whose tokens together are at most max_length.
        pad_id: what padding holds; it is masked, so any id of the vocabulary will do, also EOS.

    Returns:
        A Batch of [len(rows), max_length] numpy arrays.
    """
    shape = (len(rows), max_length)
    tokens = np.full(shape, pad_id, np.int32)
    targets, positions, segment_ids = (np.zeros(shape, np.int32) for _ in range(3))
    loss_mask = np.zeros(shape, np.float32)
    for b, row in enumerate(rows):
        start = 0
        for segment, index in enumerate(row, 1):
            example = examples[index]
            end = start + len(example.tokens)
            tokens[b, start:end] = example.tokens
            targets[b, start : end - 1] = example.tokens[1:]
            # The last prompt token predicts the first response token.
            loss_mask[b, start + max(example.prompt_length - 1, 0) : end - 1] = 1.0
            positions[b, start:end] = np.arange(end - start)
            segment_ids[b, start:end] = segment
            start = end
    return Batch(tokens, targets, loss_mask, positions, segment_ids)
