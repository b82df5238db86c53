"""How surprising a model finds traces: scores.jsonl, from a forward pass over each trace after its problem's prompt.

The model is usually the student before its training; `w2sr transform --config.what=select` keeps traces by the scores.
A trace that does not fit into config.data.max_length, or has nothing to predict, gets no score and is counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.files import write_jsonl
from w2sr_jax.core.mesh import mesh_or_none
from w2sr_jax.core.trace_config import ScoreConfig
from w2sr_jax.data.examples import read_traces
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.traces import surprise

CONFIG = ScoreConfig


def main(config: ScoreConfig, workdir: str) -> dict[str, Any]:
    """Writes scores.jsonl.

    Returns:
        {"traces", "scored", "mean": surprisal}.
    """
    validate(config)
    root, directory = Path(workdir), hf.resolve(config.model)
    with cost.StageClock(workdir, "score") as clock:
        traces = read_traces(config.data.traces)
        scores, lengths = surprise.score(
            directory, traces, config.data, config.dtype, config.loss_chunk, mesh_or_none(config.mesh), clock.tick
        )
        write_jsonl(root / "scores.jsonl", scores)
        tokens = sum(lengths)
        context = sum(length**2 for length in lengths) / tokens  # of a token, on average
        flops = cost.prefill_flops(tokens=tokens, context=context, **flops_shape(hf.load_config(directory)))
        cost.append_ledger(workdir, clock.line(tokens_in=tokens, flops=flops, price=config.price))
    mean = sum(score.surprisal for score in scores) / len(scores)
    logging.info("%s: %d of %d traces scored, mean %.4f nats a token", root.name, len(scores), len(traces), mean)
    return {"traces": len(traces), "scored": len(scores), "mean": mean}


if __name__ == "__main__":
    runtime.main_exit("score", main, CONFIG)
