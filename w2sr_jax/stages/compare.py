"""The same training in JAX and in PyTorch, side by side: first the same curves, then speed, memory and cost.

The batches of our own pipeline are written once; then each side trains the same Hugging Face weights on them, in a
process of its own, with the same cores and the same environment, in turns. A peer whose package is not installed is
left out, and it is said how to get it. Where a peer's losses or gradient norms are not ours within the stated
tolerance, that is said first, and the exit code is 1. Writes compare.json, compare.md and compare.html.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.records import read_json, write_json, write_text
from w2sr_jax.core.revision import commit
from w2sr_jax.core.rows import Row, machine
from w2sr_jax.core.stage_config import CompareConfig
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.reporting import sides as report
from w2sr_jax.twin import dump, figures, training
from w2sr_jax.twin.side import environment

CONFIG = CompareConfig


def main(config: CompareConfig, workdir: str) -> int:
    """Compares and reports.

    Returns:
        0, or 1 where a peer's curves are not ours.
    """
    validate(config)
    root, config = Path(workdir), inputs(config, Path(workdir))
    threads = config.threads or len(os.sched_getaffinity(0))
    env = environment(threads, os.environ)
    workloads = {}
    for rows, tokens in config.shapes or ((config.sft.data.batch_size, config.sft.data.max_length),):
        kind = "packed" if config.sft.data.packing else "one example a row"
        name = f"{rows} x {tokens} tokens, {kind}, {config.sft.train.dtype}"
        workloads[name] = workload(config, root / "workloads" / f"{rows}x{tokens}", rows, tokens, threads, env)
    found = summary(config, workloads, threads, env)
    write_json(root / "compare.json", found)
    write_text(root / "compare.md", report.text(found))
    print(report.text(found))
    return 0 if found["parity_holds"] else 1


def inputs(config: CompareConfig, root: Path) -> CompareConfig:
    """The config with paths: of the model and data that it names, or of random ones."""
    sft = config.sft
    if config.random.shape:
        from w2sr_jax.twin.made import make

        model, problems, traces = make(config.random, root / "random", sft.train.dtype)
        data = dataclasses.replace(sft.data, problems=str(problems), traces=str(traces))
        sft = dataclasses.replace(sft, model=str(model), data=data)
    return dataclasses.replace(config, sft=dataclasses.replace(sft, model=str(hf.resolve(sft.model))))


def workload(
    config: CompareConfig, directory: Path, rows: int, tokens: int, threads: int, env: dict[str, str]
) -> dict[str, Any]:
    """One batch shape, measured; what an earlier attempt has finished is taken as it is."""
    path = directory / "measured.json"
    if path.exists():
        return read_json(path)
    data = dataclasses.replace(config.sft.data, batch_size=rows, max_length=tokens)
    config = dataclasses.replace(config, sft=dataclasses.replace(config.sft, data=data))
    total = config.parity_steps + (config.runs + 1) * (1 + config.steps_per_run)
    count = config.parity_steps
    write_batches(config, directory / "batches", count)
    batches = [dump.read_batch(directory / "batches", number) for number in range(count)]
    used = float(np.mean([np.sum(batch["segment_ids_BT"] > 0) for batch in batches]))
    shape = flops_shape(hf.load_config(config.sft.model))
    found = training.train_all(config, directory, total, threads, env) | {
        "tokens": used,
        "filled": used / (rows * tokens),
        "flops": cost.train_flops(tokens=used, context=context(batches), **shape),
    }
    write_json(path, found)
    return found


def write_batches(config: CompareConfig, directory: Path, count: int) -> None:
    """The first batches of our pipeline, unless they are there: a machine without Grain can be given them."""
    if directory.is_dir() and sum(1 for path in directory.iterdir() if path.name.isdigit()) >= count:
        return
    from w2sr_jax.data.chat import load_tokenizer
    from w2sr_jax.data.pipeline import make_pipeline

    logging.info("writing %d batches of %d x %d", count, config.sft.data.batch_size, config.sft.data.max_length)
    pipeline = make_pipeline(config.sft.data, load_tokenizer(config.sft.model), model_dir=config.sft.model)
    dump.write_batches(directory, pipeline, count)


def context(batches: list[dict[str, np.ndarray]]) -> float:
    """Tokens of the example that a token is in, on average: what its attention costs."""
    lengths = []
    for batch in batches:
        for row in batch["segment_ids_BT"]:
            lengths += np.bincount(row)[1:].tolist()
    sizes = np.array([length for length in lengths if length], np.float64)
    return float((sizes**2).sum() / sizes.sum())


def summary(
    config: CompareConfig, workloads: dict[str, dict[str, Any]], threads: int, env: dict[str, str]
) -> dict[str, Any]:
    """compare.json."""
    rows: list[Row] = []
    for name, found in workloads.items():
        rows += figures.training_rows(name, found, config)
    parity = [
        {"workload": name, "peer": figures.NAMES[peer]} | gaps
        for name, found in workloads.items()
        for peer, gaps in found["parity"].items()
    ]
    missing = {peer: package for found in workloads.values() for peer, package in found["missing"].items()}
    return {
        "schema": "compare/1",
        "machine": machine(),
        "threads": threads,
        "environment": {"GLIBC_TUNABLES": env["GLIBC_TUNABLES"], "OMP_NUM_THREADS": env["OMP_NUM_THREADS"]},
        "commit": commit(),
        "model": {"parameters": flops_shape(hf.load_config(config.sft.model))["num_params"], "path": config.sft.model},
        "parity_holds": all(one["holds"] for one in parity),
        "parity": parity,
        "missing": [
            {"column": figures.NAMES[peer], "package": package, "how": training.HOW_TO_GET.get(package, package)}
            for peer, package in missing.items()
        ],
        "rows": [one.to_json() for one in rows],
        "recipes": recipes(config, workloads),
        "price": dataclasses.asdict(config.price),
        "workloads": workloads,
    }


def recipes(config: CompareConfig, workloads: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Device-hours and money of whole recipes on each side, extrapolated by FLOPs from the workload of longest rows."""
    measured = list(workloads.values())[-1]
    found = []
    for name, recipe in config.recipes.items():
        shape = flops_shape(ModelConfig.from_hf(read_json(recipe.shape), recipe.shape))
        for side, values in measured["sides"].items():
            seconds = figures.recipe_seconds(recipe, shape, values, measured["flops"])
            usd = cost.cost_usd(seconds, config.price.usd_per_device_hour)
            found.append({"recipe": name, "side": side, "device_hours": seconds / 3600, "usd": usd})
    return found


if __name__ == "__main__":
    runtime.main_exit("compare", main, CONFIG)
