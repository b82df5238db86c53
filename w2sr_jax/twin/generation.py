"""The same prompts answered by every engine, in turns: tokens a second, and whether greedy answers are the same."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from w2sr_jax.core.tool_config import CompareConfig
from w2sr_jax.twin.training import OURS, open_sides

GREEDY, TAIL = "greedy", "tail"
SHORTEST, LONGEST = 16, 128  # tokens of a prompt
FIRST_TOKEN = 3  # the ones before are special


def generate_all(config: CompareConfig, vocab_size: int, threads: int, env: Mapping[str, str]) -> dict[str, Any]:
    """Every engine's turns.

    Returns:
        sides (name -> runs: load -> [(tokens, seconds), ...] of the counted turns), same (peer -> share of greedy
        answers that are ours to the token), missing.
    """
    count, batch, new_tokens = config.generate
    rng = np.random.default_rng(config.random.seed)
    loads = {GREEDY: {"max_tokens": new_tokens, "stop_token_ids": []}}
    mean, most = config.generate_tail
    if mean:
        # A random model at temperature 1 is nearly uniform: so many stop tokens end an answer after `mean` on average.
        stops = list(range(FIRST_TOKEN, vocab_size, mean))
        loads[TAIL] = {"max_tokens": most, "temperature": 1.0, "stop_token_ids": stops}
    common = {
        "model": str(config.sft.model),
        "dtype": config.sft.train.dtype,
        "batch": batch,
        "prompts": [
            rng.integers(FIRST_TOKEN, vocab_size, rng.integers(SHORTEST, LONGEST + 1)).tolist() for _ in range(count)
        ],
        "loads": {name: {"temperature": 0.0} | load for name, load in loads.items()},
        "threads": threads,
    }
    names = {OURS: "jax_generate", "transformers": "torch_generate", "vllm": "vllm_generate"}
    requests = {name: common | {"side": side} for name, side in names.items()}
    with contextlib.ExitStack() as stack:
        sides, missing = open_sides(requests, env, stack)
        first: dict[str, Any] = {}
        runs: dict[str, dict[str, list[tuple[int, float]]]] = {name: {load: [] for load in loads} for name in sides}
        for turn in range(config.runs + 1):
            order = list(sides)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                for load in loads:
                    found = sides[name].ask({"do": "generate", "load": load})
                    if turn == 0:
                        first[name] = first.get(name, {}) | {load: found}
                    else:
                        runs[name][load].append((sum(map(len, found["answers"])), found["seconds"]))
            if turn:
                shown = ", ".join(f"{name} {rate(made[GREEDY][-1]):.0f}" for name, made in runs.items())
                logging.info("turn %d of %d, greedy tokens a second: %s", turn, config.runs, shown)
        found = {
            name: side.ask({"do": "describe"})
            | {
                "startup_seconds": side.startup_seconds,
                "first_seconds": sum(one["seconds"] for one in first[name].values()),
                "runs": runs[name],
            }
            for name, side in sides.items()
        }
    ours = first[OURS][GREEDY]["answers"]
    same = {
        name: float(np.mean([a == b for a, b in zip(ours, one[GREEDY]["answers"], strict=True)]))
        for name, one in first.items()
        if name != OURS
    }
    return {"kind": "generate", "sides": found, "same": same, "missing": missing}


def rate(run: tuple[int, float]) -> float:
    """Tokens a second of one turn."""
    tokens, seconds = run
    return tokens / seconds
