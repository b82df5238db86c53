"""A teacher writes reasoning traces for problems, greedily by default: traces.jsonl and manifest.json.

Answers are appended as they finish, keyed by (problem, sample); a killed run continues with what is missing, unless the
problems, the weights, the tokenizer or the template have changed since (identity.json).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import to_dict, validate
from w2sr_jax.core.files import made_by_writer, read_json, write_jsonl
from w2sr_jax.core.stage_config import DistillConfig
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.engine.identity import identify
from w2sr_jax.engine.open import Answers, write_traces
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape

CONFIG = DistillConfig
LOGGED = ("traces", "response_tokens", "length_stops")


def main(config: DistillConfig, workdir: str) -> dict[str, Any]:
    """Writes traces.jsonl and manifest.json.

    Returns:
        the manifest.
    """
    validate(config)
    root = Path(workdir)
    directory = hf.resolve(config.model)
    problems = load_problems(config.problems, config.limit)
    done = (root / "manifest.json").exists()
    identity = identify(root / ("manifest.json" if done else "traces.jsonl"), directory, problems, config.template)
    if done:
        return read_json(root / "manifest.json")
    with cost.StageClock(workdir, "distill") as clock:
        answers = write_traces(
            root / "traces.jsonl", directory, problems, config, config.sampling, config.template, clock
        )

        def finish() -> dict[str, Any]:
            # They were appended as they ended: in their own order a resumed run's file is that of an unbroken one.
            write_jsonl(root / "traces.jsonl", answers.traces)
            flops = answers.flops(flops_shape(hf.load_config(directory)))
            cost.append_ledger(workdir, clock.line(**answers.used, flops=flops, price=config.price))
            return manifest_of(config, identity, answers, len(problems))

        manifest = made_by_writer(root / "manifest.json", finish)  # last: with it the stage is done
    counts = manifest["counts"]
    logging.info("%d traces, %d tokens, %d cut at max_tokens", *(counts[name] for name in LOGGED))
    return manifest


def manifest_of(config: DistillConfig, identity: dict[str, str], answers: Answers, problems: int) -> dict[str, Any]:
    """Who answered what, and how."""
    reasons = Counter(trace.finish_reason for trace in answers.traces)
    return {
        "teacher": config.model,
        **identity,
        "template": config.template,
        "response_prefix": config.response_prefix,
        "sampling": to_dict(config.sampling),
        **answers.provenance,
        "parallelism": to_dict(config.mesh),
        "problems": config.problems,
        "counts": {
            "problems": problems,
            "traces": len(answers.traces),
            "response_tokens": answers.used["tokens_out"],
            "length_stops": reasons["length"],
            "failed": reasons["failed"],
        },
    }


if __name__ == "__main__":
    runtime.main_exit("distill", main, CONFIG)
