"""Where problems and protocols meet a real model: prompts and token budgets in its context, stop strings as cuts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core.config import SamplingConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.data.chat import load_tokenizer, render
from w2sr_jax.data.protocols import cut
from w2sr_jax.engine.base import Sampling, check_prompts, encode_prompts
from w2sr_jax.model import hf


def check_problems(
    template: str,
    problems: Sequence[Problem],
    directory: Path,
    tokenizer: Any,
    sampling: Sampling,
    response_prefix: str = "",
) -> None:
    """Raises W2SRError for the first problem that an engine will refuse (`check_prompts`), by its id.

    An engine takes minutes to start, and GRPO asks some problems for the first time after hours.
    """
    prompts = encode_prompts([render(template, p.problem, tokenizer) + response_prefix for p in problems], tokenizer)
    model, names = hf.load_config(directory), [f"problem {p.id!r}" for p in problems]
    check_prompts(prompts, sampling, model.vocab_size, model.max_position_embeddings, names)


def within_context(
    sampling: SamplingConfig, template: str, problems: Sequence[Problem], directory: Path, response_prefix: str
) -> SamplingConfig:
    """A protocol's sampling with its token budget lowered to what the model's context leaves beside any prompt.

    A protocol's budget is meant for long contexts; Qwen2.5-Math has 4,096 positions. The budget that was asked for
    stays in the decoding protocol, so that models of different contexts can be compared under one protocol.

    Raises:
        W2SRError: a prompt fills the whole context.
    """
    tokenizer = load_tokenizer(directory)
    prompts = [render(template, p.problem, tokenizer) + response_prefix for p in problems]
    longest = max(len(tokenizer.encode(prompt, add_special_tokens=False)) for prompt in prompts)
    context = hf.load_config(directory).max_position_embeddings
    if longest >= context:
        raise W2SRError(
            f"{problems[0].source or 'problems'}: a prompt of {longest} tokens fills the model's context of {context}"
        )
    if longest + sampling.max_tokens <= context:
        return sampling
    logging.info("context of %d: responses are cut at %d tokens", context, context - longest)
    return dataclasses.replace(sampling, max_tokens=context - longest)


def cut_at_stops(traces: Sequence[Trace], stops: tuple[str, ...], prefix: int) -> tuple[list[Trace], dict[str, int]]:
    """The traces cut at the protocol's stop strings, and how many were cut.

    A cut response counts as stopped, as it would have; its tokens are those that were generated.

    Returns:
        (traces, {"cut": responses, "cut_length_stops": those among them that had run into the token limit}).
    """
    found, cuts = [], Counter[str](cut=0, cut_length_stops=0)
    for trace in traces:
        text = cut(trace.response, stops, prefix)
        if text != trace.response:
            cuts["cut"] += 1
            cuts["cut_length_stops"] += trace.finish_reason == "length"
            trace = dataclasses.replace(trace, response=text, finish_reason="stop")
        found.append(trace)
    return found, dict(cuts)
