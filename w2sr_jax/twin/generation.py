"""The same prompts answered by every engine, in turns: tokens a second, and whether greedy answers are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from w2sr_jax.core.tool_config import CompareConfig
from w2sr_jax.twin.engines import batches
from w2sr_jax.twin.sides import OURS, Requests, Sides, groups
from w2sr_jax.twin.training import in_turn

GREEDY, TAIL = "greedy", "tail"
SHORTEST, LONGEST = 16, 128  # tokens of a prompt
FIRST_TOKEN = 3  # the ones before are special
# Share of greedy answers whose first token must be ours. With random weights the best two of thousands of logits may be
# as near as float32 rounds, so one answer in a hundred may begin otherwise; bfloat16 rounds coarser than such gaps are,
# and promises nothing. Whatever comes after another token is another text: whole answers are shown, and not judged.
FIRST_TOKENS = {"float32": 0.99, "bfloat16": 0.0}
WRONG = 0.5  # in float32, fewer than these are no rounding: a wrong mask, position or stop spoils nearly all


def generate_all(config: CompareConfig, vocab_size: int, threads: int, env: Mapping[str, str]) -> dict[str, Any]:
    """Every engine's turns.

    Returns:
        sides (name -> runs: load -> [(tokens, seconds), ...] of the counted turns), loads (name -> how rows call it),
        answers (peer -> of `same_answers`), missing.
    """
    requests, loads = _requests(config, vocab_size, threads)
    found: dict[str, Any] = {}
    greedy: dict[str, list[list[int]]] = {}
    missing: dict[str, str] = {}
    platform = ""
    for together in groups(requests, env):
        with Sides(together, env, platform) as sides:
            platform = sides.platform
            first, runs = _turns(config.runs, sides, list(loads))
            for name, side in list(sides.alive.items()):
                if about := sides.ask(name, {"do": "describe"}):
                    greedy[name] = first[name][GREEDY]["answers"]
                    found[name] = about | {
                        "startup_seconds": side.startup_seconds,
                        "first_seconds": {load: one["seconds"] for load, one in first[name].items()},
                        "runs": runs[name],
                    }
                    if (scale := tail_scale(requests[name])) != 1:
                        found[name]["runs"][TAIL] = [(tokens * scale, seconds) for tokens, seconds in runs[name][TAIL]]
                        found[name]["settings"] += f", one batch's long-tailed rate times {scale:.3f} for that of all"
            missing |= sides.missing
    ours = greedy.pop(OURS)
    answers = {name: same_answers(ours, one, config.sft.train.dtype) for name, one in greedy.items()}
    return {"kind": "generate", "sides": found, "loads": loads, "answers": answers, "missing": missing}


def _requests(config: CompareConfig, vocab_size: int, threads: int) -> tuple[Requests, dict[str, str]]:
    """(each side's request, load -> how rows call it)."""
    count, batch, new_tokens = config.generate
    tail_count, mean, most = config.generate_tail
    rng, dtype = np.random.default_rng(config.random.seed), config.sft.train.dtype
    prompts = [
        rng.integers(FIRST_TOKEN, vocab_size, rng.integers(SHORTEST, LONGEST + 1)).tolist()
        for _ in range(max(count, tail_count))
    ]
    named = {GREEDY: f"{count} prompts, {batch} together, {new_tokens} tokens, {dtype}, greedy, one length"}
    loads: dict[str, dict[str, Any]] = {GREEDY: {"prompts": count, "max_tokens": new_tokens, "temperature": 0.0}}
    if tail_count:
        # As if each token ended an answer with a chance of 1 in `mean`; every side's answers have the same lengths.
        limits = np.minimum(rng.geometric(1 / mean, tail_count), most).tolist()
        lengths = f"long-tailed lengths (mean {mean}, at most {most})"
        named[TAIL] = f"{tail_count} prompts, {batch} together, {dtype}, sampled, {lengths}"
        loads[TAIL] = {"prompts": tail_count, "max_tokens": most, "temperature": 1.0, "limits": limits}
    common = {
        "model": str(config.sft.model),
        "dtype": dtype,
        "batch": batch,
        "prompts": prompts,
        "loads": loads,
        "threads": threads,
    }
    sides = {OURS: "jax_generate", "transformers": "torch_generate", "vllm": "vllm_generate"}
    requests = {name: common | {"side": side} for name, side in sides.items()}
    if tail_count > batch:
        # `generate` refills nothing: one batch says how long a decoding step takes, in a fraction of the time.
        requests["transformers"]["loads"] = loads | {TAIL: loads[TAIL] | {"prompts": batch}}
    return requests, named


def tail_scale(request: Mapping[str, Any]) -> float:
    """What the long-tailed rate of a side that answers some of the prompts is multiplied with, to be that of all.

    Batches go on until their longest answer, so a decoding step yields more useful tokens in some than in others; the
    limits say how many. Prompts' own passes are taken to be the same share of the time in each.
    """
    if not (load := request["loads"].get(TAIL)):
        return 1.0
    limits, prompts, batch = load["limits"], request["prompts"], request["batch"]
    whole, part = (tokens_a_step(prompts[:count], limits[:count], batch) for count in (len(limits), load["prompts"]))
    return whole / part


def tokens_a_step(prompts: Sequence[list[int]], limits: Sequence[int], batch: int) -> float:
    """Tokens of answers that a decoding step yields on average, where a batch goes on until its longest answer."""
    steps = sum(max(limits[place] for place in places) for places in batches(prompts, batch))
    return sum(limits) / steps


def _turns(turns: int, sides: Sides, loads: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(answers and seconds of each side's first pass, its counted ones), by load."""
    first: dict[str, Any] = {name: {} for name in sides.alive}
    runs: dict[str, dict[str, list[tuple[int, float]]]] = {name: {load: [] for load in loads} for name in sides.alive}
    for turn in range(turns + 1):
        for name in in_turn(list(sides.alive), turn):
            for load in loads:
                if (found := sides.ask(name, {"do": "generate", "load": load})) is None:
                    break
                if turn == 0:
                    first[name][load] = found
                else:
                    runs[name][load].append((sum(map(len, found["answers"])), found["seconds"]))
        if turn:
            shown = ", ".join(f"{name} {rate(runs[name][GREEDY][-1]):.0f}" for name in sides.alive)
            logging.info("turn %d of %d, greedy tokens a second: %s", turn, turns, shown)
    return first, runs


def same_answers(ours: Sequence[list[int]], peer: Sequence[list[int]], dtype: str) -> dict[str, Any]:
    """How far greedy answers are the same: shares of first tokens and of whole answers, and what is allowed."""
    first = float(np.mean([a[:1] == b[:1] for a, b in zip(ours, peer, strict=True)]))
    whole = float(np.mean([a == b for a, b in zip(ours, peer, strict=True)]))
    return {
        "count": len(ours),
        "first": first,
        "whole": whole,
        "allowed": FIRST_TOKENS[dtype],
        "holds": first >= FIRST_TOKENS[dtype],
        "wrong": dtype == "float32" and first < WRONG,
    }


def rate(run: tuple[int, float]) -> float:
    """Tokens a second of one turn."""
    tokens, seconds = run
    return tokens / seconds
