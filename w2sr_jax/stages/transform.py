"""Traces in, traces out: errors put in on purpose, other supervision, several teachers, or a selection.

`--config.what` says which. Writes traces.jsonl, which `filter` and `sft` take like any other, and counts.json. A trace
that was changed carries what was done to it and what undoes it. The same inputs, config and seed give the same files to
the byte; a killed run is simply run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_jsonl, sha256_file, write_json, write_jsonl
from w2sr_jax.core.records import Trace, TraceScore
from w2sr_jax.core.trace_config import TransformConfig
from w2sr_jax.data.examples import read_traces
from w2sr_jax.data.solutions import load_solutions
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.traces import ensemble, errors, selection, supervision

CONFIG = TransformConfig
Made = tuple[Sequence[Trace], dict[str, int]]


def main(config: TransformConfig, workdir: str) -> dict[str, Any]:
    """Writes traces.jsonl and counts.json.

    Returns:
        the counts.
    """
    validate(config)
    root = Path(workdir)
    with cost.StageClock(workdir, "transform", device_kind="cpu") as clock:
        make = {"inject": _inject, "supervise": _supervise, "ensemble": _ensemble, "select": _select}[config.what]
        traces, numbers = make(config)
        if not traces:
            raise W2SRError(f"{config.what}: no trace is left of {', '.join(config.traces) or config.problems}")
        write_jsonl(root / "traces.jsonl", traces)
        counts: dict[str, Any] = {"what": config.what, **numbers, "sha256": sha256_file(root / "traces.jsonl")}
        write_json(root / "counts.json", counts)
        cost.append_ledger(workdir, clock.line(price=config.price))
    logging.info("%s: %s", root.name, ", ".join(f"{number} {name}" for name, number in numbers.items()))
    return counts


def _inject(config: TransformConfig) -> Made:
    traces, problems = read_traces(config.traces[0]), {p.id: p for p in load_problems(config.problems)}
    for trace in traces:
        if trace.problem_id not in problems:
            raise W2SRError(f"{config.traces[0]}: problem_id {trace.problem_id!r} is not in {config.problems}")
    made, counts = errors.inject(traces, problems, config.inject, config.seed)
    if counts["touched"] < counts["wanted"]:
        logging.warning("only %d of %d traces can have a %s", counts["touched"], len(traces), config.inject.kind)
    return made, counts


def _supervise(config: TransformConfig) -> Made:
    if config.supervise == "solutions":
        solutions = load_solutions(config.problems)
        return solutions, {"traces": len(solutions)}
    change = supervision.answer_only if config.supervise == "answer_only" else supervision.reasoning_only
    traces = read_traces(config.traces[0])
    made = [new for trace in traces if (new := change(trace)) is not None]
    if len(made) < len(traces):
        logging.warning("%s: %d of %d traces have what is wanted", config.supervise, len(made), len(traces))
    return made, {"traces": len(traces), "wanted": len(traces), "kept": len(made)}


def _ensemble(config: TransformConfig) -> Made:
    return ensemble.ensemble([read_traces(path) for path in config.traces], config.ensemble, config.seed)


def _select(config: TransformConfig) -> Made:
    scores = {}
    if config.select.scores:
        rows = read_jsonl(config.select.scores, TraceScore)
        scores = {(row.teacher, row.problem_id, row.sample): row for row in rows}
    return selection.select(read_traces(config.traces[0]), config.select, config.seed, scores)


if __name__ == "__main__":
    runtime.main_exit("transform", main, CONFIG)
