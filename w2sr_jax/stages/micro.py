"""Make what the embedded default starts from: problems, base models, control traces with random digits, solutions.

`--config.what` says which. problems: train.jsonl, validation.jsonl, test.jsonl, which share no problem. base: a model
trained from scratch, in export/, with metrics.jsonl. scramble and solutions: traces.jsonl. From there on nothing knows
that these are small.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.files import read_jsonl, write_json, write_jsonl
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.data.examples import read_traces
from w2sr_jax.data.solutions import HUMAN
from w2sr_jax.micro.config import MicroConfig
from w2sr_jax.micro.corpus import batches
from w2sr_jax.micro.letters import Letters
from w2sr_jax.micro.pretrain import CONTEXT, pretrain
from w2sr_jax.micro.scramble import scramble
from w2sr_jax.micro.task import SPLITS, Chain, Task, make_splits
from w2sr_jax.micro.tokenizer import make_tokenizer, save_tokenizer
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape

CONFIG = MicroConfig
TASKS: dict[str, type[Task]] = {"arithmetic": Chain, "letters": Letters}


def main(config: MicroConfig, workdir: str) -> dict[str, Any]:
    """Makes one of them.

    Returns:
        counts of what was made.
    """
    validate(config)
    makers = {
        "problems": make_problems,
        "base": make_base,
        "scramble": make_scrambled,
        "solutions": make_solutions,
    }
    return makers[config.what](config, Path(workdir))


def make_problems(config: MicroConfig, root: Path) -> dict[str, Any]:
    """Writes one problems file a split."""
    sizes = {"train": config.splits.train, "validation": config.splits.validation, "test": config.splits.test}
    with cost.StageClock(root, "micro", device_kind="cpu") as clock:
        for name, problems in make_splits(config.seed, sizes, TASKS[config.domain]).items():
            write_jsonl(root / f"{name}.jsonl", problems)
        cost.append_ledger(root, clock.line(price=config.price))
    return dict(sizes)


def make_base(config: MicroConfig, root: Path) -> dict[str, Any]:
    """Pretrains a model and writes export/. A killed run starts over."""
    splits = {name: read_jsonl(Path(config.problems) / f"{name}.jsonl", Problem) for name in SPLITS}
    held_out = {problem.problem for problems in splits.values() for problem in problems}
    validation = splits["validation"][: config.pretrain.validation_limit or None]
    with cost.StageClock(root, "micro") as clock:
        names, task = (config.domain, config.size.family), TASKS[config.domain]
        save_tokenizer(root / "tokenizer", CONTEXT, *names)
        data = batches(config.corpus, config.pretrain.rows, make_tokenizer(*names), config.seed, held_out, task)
        made = pretrain(config.pretrain, config.size, config.seed, data, validation, root, clock.tick, task)
        hf.save(made.model, root / "export", "float32", tokenizer_from=root / "tokenizer")
        flops = cost.train_flops(
            tokens=made.tokens, context=made.context, **flops_shape(hf.load_config(root / "export"))
        )
        cost.append_ledger(root, clock.line(tokens_in=made.tokens, flops=flops, price=config.price))
    result = {"steps": made.steps, "tokens": made.tokens, "careful_pass_at_1": made.careful_pass_at_1}
    write_json(root / "pretraining.json", result)
    return result


def make_scrambled(config: MicroConfig, root: Path) -> dict[str, Any]:
    """Writes traces.jsonl: those of config.traces with every value drawn anew."""
    rng = random.Random(f"micro scramble {config.seed}")
    with cost.StageClock(root, "micro", device_kind="cpu") as clock:
        traces = [scramble(trace, rng) for trace in read_traces(config.traces)]
        write_jsonl(root / "traces.jsonl", traces)
        cost.append_ledger(root, clock.line(price=config.price))
    return {"traces": len(traces)}


def make_solutions(config: MicroConfig, root: Path) -> dict[str, Any]:
    """Writes traces.jsonl: what a careful person writes for each problem of config.problems."""
    tokenizer = make_tokenizer(config.domain)
    with cost.StageClock(root, "micro", device_kind="cpu") as clock:
        traces = []
        for problem in read_jsonl(config.problems, Problem):
            response = TASKS[config.domain].parse(problem.problem).worked()
            tokens = len(tokenizer.encode(response).ids) + 1
            traces.append(
                Trace(
                    problem_id=problem.id,
                    sample=0,
                    response=response,
                    response_tokens=tokens,
                    finish_reason="stop",
                    teacher=HUMAN,
                )
            )
        write_jsonl(root / "traces.jsonl", traces)
        cost.append_ledger(root, clock.line(price=config.price))
    return {"traces": len(traces)}


if __name__ == "__main__":
    runtime.main_exit("micro", main, CONFIG)
