"""From sampled responses to the arrays that the policy update takes, and the order in which problems are asked.

Shape letters: B responses, T time.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from w2sr_jax.learn.step import RolloutBatch

# Rows above 1,024 tokens are multiples of it on a TPU: Splash's blocks are the largest that divide a row, and rows of
# 1,152 or 1,664 would get blocks of 128.
TPU_BLOCK = 512


def bucket(length: int, platform: str = "") -> int:
    """`length` rounded up, so that a few widths serve every rollout: multiples of 16 up to 256, then of ever more.

    Args:
        platform: whose kernels read the rows; by default that of this process's devices.
    """
    step = 16
    while length > 16 * step:
        step *= 2
    if length > 1024 and (platform or jax.default_backend()) == "tpu":
        step = max(step, TPU_BLOCK)
    return -(-length // step) * step


def pad_rollout(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    sampler_logprobs: Sequence[Sequence[float]],
    advantages: np.ndarray,
    length: int,
) -> RolloutBatch:
    """Right-padded arrays of prompts with their responses.

    Args:
        prompts: token ids, one entry per response.
        responses: token ids with the stop token, none empty.
        sampler_logprobs: of the response tokens, as the engine reported them.
        advantages: [B] float.
        length: T, at least the longest prompt + response - 1.

    Returns:
        numpy arrays; old and reference logprobs are zeros for the caller to fill.
    """
    count = len(prompts)
    tokens, targets, positions, segments = (np.zeros((count, length), np.int32) for _ in range(4))
    mask, logprobs = (np.zeros((count, length), np.float32) for _ in range(2))
    for row, (prompt, response) in enumerate(zip(prompts, responses)):
        whole = np.array([*prompt, *response], np.int32)
        size, first = len(whole) - 1, len(prompt) - 1
        tokens[row, :size], targets[row, :size] = whole[:-1], whole[1:]
        positions[row, :size], segments[row, :size] = np.arange(size), 1
        mask[row, first:size] = 1.0
        logprobs[row, first:size] = sampler_logprobs[row]
    return RolloutBatch(
        tokens_BT=tokens,
        targets_BT=targets,
        loss_mask_BT=mask,
        positions_BT=positions,
        segment_ids_BT=segments,
        old_logprobs_BT=np.zeros_like(mask),
        ref_logprobs_BT=np.zeros_like(mask),
        sampler_logprobs_BT=logprobs,
        advantages_B=np.asarray(advantages, np.float32),
    )


class Stream:
    """An endless order of `size` items, shuffled anew each epoch; `cursor` (items taken) is its whole state."""

    def __init__(self, size: int, seed: int, cursor: int = 0):
        self.size, self.seed, self.cursor = size, seed, cursor

    def take(self, count: int) -> list[int]:
        """The next `count` indices."""
        taken = []
        for place in range(self.cursor, self.cursor + count):
            epoch, index = divmod(place, self.size)
            taken.append(int(self._order(epoch)[index]))
        self.cursor += count
        return taken

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.size)
