"""The input pipeline alone: how many tokens a second it lays out, beside what the fastest training step eats."""

from __future__ import annotations

import statistics
import time

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.rows import Row
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.data.pipeline import make_pipeline

MOST_WAIT = 1.0  # percent of a step


def tokens_per_second(data: DataConfig, model: str, batches: int = 50, runs: int = 5) -> list[float]:
    """Of each run, after one that is not counted; padding excluded."""
    pipeline, rates = make_pipeline(data, load_tokenizer(model), model_dir=model), []
    for _ in range(runs + 1):
        tokens, began = 0, time.perf_counter()
        for _ in range(batches):
            next(pipeline)
            tokens += pipeline.batch_tokens
        rates.append(tokens / (time.perf_counter() - began))
    return rates[1:]


def pipeline_rows(rates: list[float], fastest: float, model: str) -> list[Row]:
    """Its rate against a step's, and the share of a step that laying out its batch takes, which is all it can wait.

    Args:
        fastest: tokens a second of the fastest training step measured.
        model: whose step that was.
    """
    rate = statistics.median(rates)
    return [
        Row(
            what=f"input pipeline alone, {model}",
            ours=rate,
            peer=fastest,
            unit="tokens/s",
            against="the fastest training step measured",
            runs=len(rates),
        ),
        Row(
            what=f"data wait, at most, {model}",
            ours=100 * fastest / rate,
            peer=MOST_WAIT,
            unit="percent of a step",
            against="what is allowed",
            runs=len(rates),
        ),
    ]
