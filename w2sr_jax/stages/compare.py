"""The same work in JAX and in PyTorch, side by side: first the same curves, then speed, memory and cost.

The batches of our own pipeline are written once; then each side trains the same Hugging Face weights on them, in a
process of its own, with the same cores and the same environment, in turns: SFT (ours, transformers with and without
torch.compile, TRL), GRPO updates on fixed rollouts, and generation (ours, transformers, vLLM). A peer whose package is
not installed is left out, and it is said how to get it. Where a peer's losses or gradient norms are not ours within the
stated tolerance, that is said first, and the exit code is 1; so is it where most of an engine's greedy answers are not
ours. A peer that fails is left out with its reason. Writes compare.json, compare.md and compare.html; a killed
comparison goes on after its last whole workload.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.files import read_json, write_json, write_text
from w2sr_jax.core.revision import commit
from w2sr_jax.core.rows import Row, accelerators, machine
from w2sr_jax.core.tool_config import CompareConfig
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.reporting import sides as report
from w2sr_jax.reporting import sides_page
from w2sr_jax.twin import figures
from w2sr_jax.twin.side import environment, generating
from w2sr_jax.twin.workloads import measure_all

CONFIG = CompareConfig


def main(config: CompareConfig, workdir: str) -> int:
    """Compares and reports.

    Returns:
        0, or 1 where a peer's curves are not ours.
    """
    validate(config)
    root = Path(workdir)
    config = inputs(config, root)
    threads = config.threads or len(os.sched_getaffinity(0))
    env = environment(threads, os.environ)
    found = summary(config, measure_all(config, root / "workloads", threads, env), threads, env)
    write_json(root / "compare.json", found)
    write_text(root / "compare.md", report.text(found))
    write_text(root / "compare.html", sides_page.render(found))
    print(report.text(found))
    if not found["parity_holds"]:
        logging.error("parity FAILED: see the first lines of %s", root / "compare.md")
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


def summary(
    config: CompareConfig, workloads: dict[str, dict[str, Any]], threads: int, env: dict[str, str]
) -> dict[str, Any]:
    """compare.json."""
    ours = next(iter(workloads.values()))["sides"][figures.OURS]
    config = dataclasses.replace(config, price=figures.price_of(config, ours, threads))
    rows: list[Row] = []
    for name, found in workloads.items():
        if found["kind"] == "generate":
            rows += figures.generation_rows(name, found)
        else:
            rows += figures.training_rows(name, found, config)
    parity = [
        {"workload": f"{found['kind']}, {name}", "peer": figures.NAMES[peer]} | gaps
        for name, found in workloads.items()
        for peer, gaps in found.get("parity", {}).items()
    ]
    answers = [
        {"workload": found["loads"]["greedy"], "peer": figures.NAMES[peer]} | same
        for found in workloads.values()
        for peer, same in found.get("answers", {}).items()
    ]
    return {
        "schema": "compare/1",
        "machine": machine(),
        "threads": threads,
        "alone": bool(accelerators(env)),
        "environment": {
            "GLIBC_TUNABLES": env["GLIBC_TUNABLES"],
            "GLIBC_TUNABLES of generation": generating(env)["GLIBC_TUNABLES"],
            "OMP_NUM_THREADS": env["OMP_NUM_THREADS"],
        },
        "commit": commit(),
        "model": {"parameters": flops_shape(hf.load_config(config.sft.model))["num_params"], "path": config.sft.model},
        "parity_holds": all(one["holds"] for one in parity) and not any(one["wrong"] for one in answers),
        "parity": parity,
        "answers": answers,
        "missing": missing(workloads),
        "rows": [one.to_json() for one in rows],
        "recipes": recipes(config, workloads),
        "price": dataclasses.asdict(config.price),
        "workloads": workloads,
    }


def missing(workloads: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """The columns that are not there, each reason once; where a column is missing in some workloads only, in which."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, one in workloads.items():
        for peer, why in one["missing"].items():
            found.setdefault((figures.NAMES[peer], why), []).append(f"{one['kind']}, {name}")
    return [
        {"column": column, "why": why + ("" if "not installed" in why else f" (in {'; '.join(places)})")}
        for (column, why), places in found.items()
    ]


def recipes(config: CompareConfig, workloads: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Device-hours and money of whole recipes on each side, extrapolated by FLOPs from the last SFT workload."""
    measured = [found for found in workloads.values() if found["kind"] == "sft"]
    found = []
    for name, recipe in config.recipes.items() if measured else ():
        shape = flops_shape(ModelConfig.from_hf(read_json(recipe.shape), recipe.shape))
        for side, values in measured[-1]["sides"].items():
            seconds = figures.recipe_seconds(recipe, shape, values, measured[-1])
            usd = cost.cost_usd(seconds, config.price.usd_per_device_hour)
            found.append({"recipe": name, "side": side, "device_hours": seconds / 3600, "usd": usd})
    return found


if __name__ == "__main__":
    runtime.main_exit("compare", main, CONFIG)
