"""A teacher writes reasoning traces for problems, greedily by default: traces.jsonl and manifest.json.

Answers are appended as they finish, keyed by (problem, sample); a killed run continues with what is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, processes, runtime
from w2sr_jax.core.config import to_dict, validate
from w2sr_jax.core.files import read_json, sha256_file, sha256_records, write_json, write_jsonl
from w2sr_jax.core.stage_config import DistillConfig
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.engine.open import model_name, write_traces
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape

CONFIG = DistillConfig


def main(config: DistillConfig, workdir: str) -> dict[str, Any]:
    """Writes traces.jsonl and manifest.json.

    Returns:
        the manifest.
    """
    validate(config)
    root = Path(workdir)
    directory = hf.resolve(config.model)
    problems = load_problems(config.problems, config.limit)
    problems_sha256 = sha256_records(problems)
    if (root / "manifest.json").exists():
        finished = read_json(root / "manifest.json")
        if finished["problems_sha256"] == problems_sha256:
            return finished
    with cost.StageClock(workdir, "distill") as clock:
        traces, provenance = write_traces(
            root / "traces.jsonl",
            directory,
            problems,
            kind=config.engine,
            decode=config.decode,
            mesh=config.mesh,
            config=config.sampling,
            template=config.template,
            response_prefix=config.response_prefix,
            teacher=model_name(config.model),
            tick=clock.tick,
        )
        if not processes.is_writer():  # the rest is counting and writing
            processes.barrier("manifest.json", processes.FOREVER_S)
            return read_json(root / "manifest.json")
        # They were appended as they ended: in their own order a resumed run's file is that of an unbroken one.
        write_jsonl(root / "traces.jsonl", traces)
        tokens = sum(trace.response_tokens for trace in traces)
        manifest: dict[str, Any] = {
            "teacher": config.model,
            "weights": hf.weights_hash(directory),
            "tokenizer_sha256": sha256_file(directory / "tokenizer.json"),
            "template": config.template,
            "response_prefix": config.response_prefix,
            "sampling": to_dict(config.sampling),
            **provenance,
            "parallelism": to_dict(config.mesh),
            "problems": config.problems,
            "problems_sha256": problems_sha256,
            "counts": {
                "problems": len(problems),
                "traces": len(traces),
                "response_tokens": tokens,
                "length_stops": sum(trace.finish_reason == "length" for trace in traces),
                "failed": sum(trace.finish_reason == "failed" for trace in traces),
            },
        }
        shape = flops_shape(hf.load_config(directory))
        flops = cost.decode_flops(tokens=tokens, context=tokens / max(1, len(traces)) / 2, **shape)
        cost.append_ledger(workdir, clock.line(tokens_out=tokens, flops=flops, price=config.price))
        write_json(root / "manifest.json", manifest)  # last: with it the stage is done
        processes.barrier("manifest.json", processes.FOREVER_S)
    logging.info("%d traces, %d tokens, %d cut at max_tokens", len(traces), tokens, manifest["counts"]["length_stops"])
    return manifest


if __name__ == "__main__":
    runtime.main_exit("distill", main, CONFIG)
