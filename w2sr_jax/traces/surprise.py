"""Traces scored by how surprising a model finds them: each after its problem's prompt, in that model's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.mesh import batch_ways
from w2sr_jax.core.records import Trace, TraceScore
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.data import chat
from w2sr_jax.data.pack import pack_rows
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.learn.surprisal import surprisals
from w2sr_jax.model import hf

SMALLEST_WIDTH = 64  # rows are padded to powers of two from here on: a handful of shapes to compile


def score(
    directory: Path,
    traces: list[Trace],
    data: DataConfig,
    dtype: str,
    loss_chunk: int,
    mesh: Mesh | None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[list[TraceScore], list[int]]:
    """The score of every trace that fits into data.max_length and has something to predict, in their order.

    Args:
        directory: of the model.
        data: problems, template, max_length, and batch_size in traces.
        mesh: None is the first device. All processes that have a part of it call this, and get all scores.
        tick: called after each batch.

    Returns:
        (scores, tokens that were read for each).

    Raises:
        W2SRError: a trace's problem is not known, or no trace fits.
    """
    examples = encode(data, traces, directory)
    fitting = [i for i, e in enumerate(examples) if e.prompt_length < len(e.tokens) <= data.max_length]
    if not fitting:
        raise W2SRError(f"{data.traces}: no trace fits into max_length={data.max_length} tokens")
    ways = 1 if mesh is None else batch_ways(mesh)
    rows = -(-data.batch_size // ways) * ways
    train = TrainConfig(dtype=dtype, remat="none", loss_chunk=loss_chunk)
    model = hf.load(directory, mesh, compute_dtype=dtype)
    found = surprisals(model, _batches(examples, fitting, rows, data.max_length), train, mesh, tick)
    return [_score(traces[i], *found[i]) for i in fitting], [len(examples[i].tokens) for i in fitting]


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
