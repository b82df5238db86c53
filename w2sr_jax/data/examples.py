"""Training examples from a file of traces and the problems that they answer."""

from __future__ import annotations

import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import iter_rows
from w2sr_jax.core.records import EditedTrace, GradedTrace, RecordError, Trace
from w2sr_jax.data import chat
from w2sr_jax.data.tasks import load_problems

CHUNK = 4096  # traces encoded in one call; bounds the memory that lists of Python integers take


def read_traces(path: str) -> list[Trace]:
    """Reads the raw traces of `distill`, the graded ones of `filter` or the edited ones of `transform`.

    Raises:
        RecordError: a line is no trace, a sample occurs twice, or there is none.
    """
    traces: list[Trace] = []
    lines: dict[tuple[str, str, int], int] = {}
    for number, trace in iter_traces(path):
        key = (trace.teacher, trace.problem_id, trace.sample)
        if key in lines:
            raise RecordError(
                f"{path}: line {number}: sample: {trace.sample} of problem {trace.problem_id!r} "
                f"is also on line {lines[key]}"
            )
        lines[key] = number
        traces.append(trace)
    if not traces:
        raise RecordError(f"{path}: holds no traces")
    return traces


def iter_traces(path: str | Path) -> Iterator[tuple[int, Trace]]:
    """(line number, trace) of raw, graded or edited traces, one at a time."""
    for number, row in iter_rows(path):
        yield number, _kind(row).from_json(row, f"{path}: line {number}")


def _kind(row: Any) -> type[Trace]:
    if not isinstance(row, dict):
        return Trace
    if row.get("schema") == EditedTrace.schema:
        return EditedTrace
    return GradedTrace if row.get("schema") == GradedTrace.schema or "correct" in row else Trace


def load_examples(
    config: DataConfig, tokenizer: Any, model_dir: str | Path | None = None
) -> tuple[list[chat.Example], dict[str, int]]:
    """Encodes every trace that fits into config.max_length, in the order of the file.

    A response that ended by itself is closed with the template's closing token. One that was cut off, by the
    teacher's length limit or by overlong="truncate", is not: it would teach to stop in the middle.

    Returns:
        The examples, and counts: "overlong" (dropped: longer than a row), "no_target" (dropped: nothing to learn
        from in a row's length), "truncated" (kept, cut).

    Raises:
        RecordError: a trace answers no problem of config.problems.
        W2SRError: no example is left, or one is too long under overlong="error".
    """
    problems = {p.id: p.problem for p in load_problems(config.problems)}
    traces = read_traces(config.traces)
    prompts: dict[str, str] = {}
    for trace in traces:
        if trace.problem_id not in problems:
            raise RecordError(f"{config.traces}: problem_id: {trace.problem_id!r} is not in {config.problems}")
        if trace.problem_id not in prompts:
            prompts[trace.problem_id] = chat.render(config.template, problems[trace.problem_id], tokenizer)
    closing_id = chat.closing_token_id(model_dir, tokenizer, config.template)

    examples: list[chat.Example] = []
    counts = {"overlong": 0, "no_target": 0, "truncated": 0}
    for start in range(0, len(traces), CHUNK):
        chunk = traces[start : start + CHUNK]
        encoded = chat.encode_examples(
            tokenizer,
            [prompts[t.problem_id] for t in chunk],
            [t.response for t in chunk],
            [closing_id if t.finish_reason == "stop" else None for t in chunk],
        )
        for trace, example in zip(chunk, encoded):
            kept = _fit(example, config, trace, counts)
            if kept is not None:
                examples.append(chat.Example(array.array("i", kept.tokens), kept.prompt_length))
    if any(counts.values()):
        logging.info("%s: %s", config.traces, ", ".join(f"{n} {name}" for name, n in counts.items()))
    if not examples:
        raise W2SRError(
            f"{config.traces}: none of {len(traces)} traces fits into max_length={config.max_length} tokens"
        )
    return examples, counts


def _fit(example: chat.Example, config: DataConfig, trace: Trace, counts: dict[str, int]) -> chat.Example | None:
    """The example, cut or not, or None when it is dropped; adds to `counts`."""
    length = len(example.tokens)
    if length > config.max_length:
        if config.overlong == "error":
            raise W2SRError(
                f"{config.traces}: problem {trace.problem_id!r} sample {trace.sample}: {length} tokens are more than "
                f"max_length={config.max_length}; raise it, or set overlong to drop or truncate"
            )
        if config.overlong == "drop":
            counts["overlong"] += 1
            return None
        example = chat.Example(example.tokens[: config.max_length], example.prompt_length)
    if len(example.tokens) <= max(example.prompt_length, 1):
        counts["no_target"] += 1
        return None
    counts["truncated"] += length > config.max_length
    return example
