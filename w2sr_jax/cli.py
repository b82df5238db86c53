"""`w2sr STAGE ...`: finds the stage and hands the command line to runtime.launch."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from w2sr_jax.core.allocator import reserve, restart_with_tunables, wants_tunables

STAGES = {
    "convert": "read a Hugging Face model, check every tensor, write it again",
    "distill": "a teacher writes reasoning traces for problems",
    "transform": "traces with errors, less supervision, several teachers, or a selection of them",
    "score": "how surprising a model finds traces",
    "filter": "grade traces; split them into all, correct and incorrect",
    "sft": "fine-tune a student on traces",
    "grpo": "train a model by reinforcement learning with verifiable rewards",
    "evaluate": "Pass@1, avg@k and pass@k of a model on a benchmark",
    "report": "Pass@1, RGR, claims and costs of an experiment; Markdown, JSON and HTML",
    "micro": "make the embedded task, its base models and its control traces",
    "plan": "compile the steps for a TPU slice or a CPU mesh without having it: memory, collectives, step time, cost",
    "compare": "the same training in JAX and in PyTorch, in turns on one machine: parity, speed, memory, cost",
    "doctor": "check hosts, devices, network, disks and clocks before a run: a table with remedies",
    "run": "a whole experiment: every stage above, in order, resumable",
}


def usage() -> str:
    """What `w2sr --help` prints."""
    lines = [f"  {name:<10} {text}" for name, text in STAGES.items()]
    return "\n".join([
        "usage: w2sr STAGE [--config=FILE.py[:VARIANT]] --workdir=DIR [--config.KEY=VALUE ...]",
        "",
        "Weak-to-strong reasoning (arXiv 2505.20072) on JAX. Stages:",
        *lines,
        "",
        "w2sr STAGE --help lists a stage's config keys with their defaults.",
    ])  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `w2sr` command; returns the exit code."""
    called, argv = argv is not None, sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] not in STAGES:
        close = difflib.get_close_matches(argv[0], STAGES, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; one of {', '.join(STAGES)}"
        print(f"w2sr: no stage {argv[0]!r}{hint}", file=sys.stderr)
        return 2
    if not called:
        if wants_tunables(argv[0], argv[1:], os.environ):
            restart_with_tunables(argv[0])
        reserve(os.environ)
    from w2sr_jax.core.runtime import launch

    module = importlib.import_module(f"w2sr_jax.stages.{argv[0]}")
    return launch(argv[0], module.main, module.CONFIG, argv[1:])


if __name__ == "__main__":
    sys.exit(main())
