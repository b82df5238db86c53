"""Rewards of a group of responses to one problem -> advantages, on the host.

Shape letters: P problems, G group (responses to one problem).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EPSILON = 1e-6  # added to the standard deviation, as SimpleRL-Zoo's verl does


def group_advantages(rewards_PG: npt.ArrayLike, kind: str) -> tuple[npt.NDArray[np.float32], int]:
    """Each response against its own group.

    Args:
        rewards_PG: one row per problem.
        kind: "grpo": (r - mean) / (std + 1e-6) with the unbiased std (DeepSeekMath, arXiv 2402.03300);
            "dr_grpo": r - mean (arXiv 2503.20783).

    Returns:
        (advantages_PG float32, number of groups whose rewards are all the same). Those groups get exactly 0, not a
        rounding error: they carry no policy gradient.
    """
    rewards = np.asarray(rewards_PG, np.float64)
    flat = rewards.max(axis=1) == rewards.min(axis=1)
    advantages = rewards - rewards.mean(axis=1, keepdims=True)
    if kind == "grpo" and rewards.shape[1] > 1:
        advantages /= rewards.std(axis=1, ddof=1, keepdims=True) + EPSILON
    advantages[flat] = 0.0
    return advantages.astype(np.float32), int(flat.sum())


def overlong_penalty(lengths: npt.ArrayLike, max_tokens: int, buffer: int) -> npt.NDArray[np.float32]:
    """Soft punishment of long responses, to be added to the reward (DAPO, arXiv 2503.14476, eq. 13).

    Args:
        lengths: response tokens, any shape.
        max_tokens: longest response.
        buffer: the penalty falls from 0 to -1 over the last so many tokens; 0 switches it off.
    """
    tokens = np.asarray(lengths, np.float64)
    if buffer == 0:
        return np.zeros(tokens.shape, np.float32)
    return np.clip((max_tokens - buffer - tokens) / buffer, -1.0, 0.0).astype(np.float32)
