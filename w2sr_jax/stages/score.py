"""How surprising a model finds traces: scores.jsonl, from a forward pass over each trace after its problem's prompt.

The model is usually the student before its training; `w2sr transform --config.what=select` keeps traces by the scores.
A trace that does not fit into config.data.max_length, or has nothing to predict, gets no score and is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import DataConfig, validate
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.mesh import batch_ways, mesh_or_none
from w2sr_jax.core.records import Trace, TraceScore, write_jsonl
from w2sr_jax.core.stage_config import ScoreConfig, TrainConfig
from w2sr_jax.data import chat
from w2sr_jax.data.examples import read_traces
from w2sr_jax.data.pack import pack_rows
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.learn.surprisal import surprisals
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape

CONFIG = ScoreConfig
SMALLEST_WIDTH = 64  # rows are padded to powers of two from here on: a handful of shapes to compile


def main(config: ScoreConfig, workdir: str) -> dict[str, Any]:
    """Writes scores.jsonl.

    Returns:
        {"traces", "scored", "mean": surprisal}.
    """
    validate(config)
    root, directory = Path(workdir), hf.resolve(config.model)
    with cost.StageClock(workdir, "score") as clock:
        mesh = mesh_or_none(config.mesh)
        traces = read_traces(config.data.traces)
        examples = encode(config.data, traces, directory)
        fitting = [i for i, e in enumerate(examples) if e.prompt_length < len(e.tokens) <= config.data.max_length]
        if not fitting:
            raise W2SRError(f"{config.data.traces}: no trace fits into max_length={config.data.max_length} tokens")
        ways = 1 if mesh is None else batch_ways(mesh)
        rows = -(-config.data.batch_size // ways) * ways
        train = TrainConfig(dtype=config.dtype, remat="none", loss_chunk=config.loss_chunk)
        model = hf.load(directory, mesh, compute_dtype=config.dtype)
        found = surprisals(model, _batches(examples, fitting, rows, config.data.max_length), train, mesh, clock.tick)
        scores = [_score(traces[i], *found[i]) for i in fitting]
        write_jsonl(root / "scores.jsonl", scores)
        tokens = sum(len(examples[i].tokens) for i in fitting)
        flops = cost.train_flops(tokens=tokens, context=tokens / len(fitting), **flops_shape(hf.load_config(directory)))
        # A forward pass alone is a third of a training step.
        cost.append_ledger(workdir, clock.line(tokens_in=tokens, flops=flops / 3, price=config.price))
    mean = sum(score.surprisal for score in scores) / len(scores)
    logging.info("%s: %d of %d traces scored, mean %.4f nats a token", root.name, len(scores), len(traces), mean)
    return {"traces": len(traces), "scored": len(scores), "mean": mean}


def encode(config: DataConfig, traces: list[Trace], directory: Path) -> list[chat.Example]:
    """Every trace after its problem's prompt in the model's own template and tokens."""
    problems = {problem.id: problem.problem for problem in load_problems(config.problems)}
    tokenizer = chat.load_tokenizer(directory)
    for trace in traces:
        if trace.problem_id not in problems:
            raise W2SRError(f"{config.traces}: problem_id {trace.problem_id!r} is not in {config.problems}")
    closing = chat.closing_token_id(directory, tokenizer, config.template)
    return chat.encode_examples(
        tokenizer,
        [chat.render(config.template, problems[t.problem_id], tokenizer) for t in traces],
        [t.response for t in traces],
        [closing if t.finish_reason == "stop" else None for t in traces],
    )


def _batches(
    examples: list[chat.Example], fitting: list[int], rows: int, max_length: int
) -> Iterator[tuple[list[int], Any]]:
    """One example a row, those of like lengths together."""
    order = sorted(fitting, key=lambda i: len(examples[i].tokens))
    for start in range(0, len(order), rows):
        names = order[start : start + rows]
        longest, width = len(examples[names[-1]].tokens), SMALLEST_WIDTH
        while width < longest:
            width *= 2
        filled = names + names[:1] * (rows - len(names))
        yield names, pack_rows(examples, [[i] for i in filled], max(longest, min(width, max_length)))


def _score(trace: Trace, surprisal: float, tokens: int) -> TraceScore:
    return TraceScore(
        problem_id=trace.problem_id, sample=trace.sample, teacher=trace.teacher, surprisal=surprisal, tokens=tokens
    )


if __name__ == "__main__":
    runtime.main_exit("score", main, CONFIG)
