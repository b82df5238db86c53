"""Fixed rollouts: traces as if a policy had sampled them, in groups whose rewards are drawn at random."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from w2sr_jax.core.stage_config import SFTConfig
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.data.examples import load_examples
from w2sr_jax.learn.advantages import group_advantages
from w2sr_jax.learn.rollout import pad_rollout
from w2sr_jax.twin.dump import groups, write_arrays

GROUP = 8  # responses that share a normalisation, as in the recipes


def write_rollouts(sft: SFTConfig, directory: Path, count: int, seed: int) -> None:
    """Writes `count` minibatches of sft.data's rows and tokens, unless they are there; old logprobs are left out."""
    if directory.is_dir() and len(groups(directory)) >= count:
        return
    rows, length, rng = sft.data.batch_size, sft.data.max_length, np.random.default_rng(seed)
    data = dataclasses.replace(sft.data, overlong="truncate")
    examples, _ = load_examples(data, load_tokenizer(sft.model), sft.model)
    for number in range(count):
        taken = [examples[(number * rows + row) % len(examples)] for row in range(rows)]
        rewards = rng.integers(0, 2, size=(rows // GROUP, GROUP)).astype(np.float32)
        advantages, _ = group_advantages(rewards, "grpo")
        rollout = pad_rollout(
            [one.tokens[: one.prompt_length] for one in taken],
            [one.tokens[one.prompt_length :] for one in taken],
            [[0.0] * (len(one.tokens) - one.prompt_length) for one in taken],
            advantages.reshape(-1),
            length,
        )
        arrays = {field.name: getattr(rollout, field.name) for field in dataclasses.fields(rollout)}
        for later in ("old_logprobs_BT", "ref_logprobs_BT", "sampler_logprobs_BT"):
            del arrays[later]
        write_arrays(directory / str(number), arrays)
