"""From what the sides measured to rows of ours, peer and ratio. Pure arithmetic."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from w2sr_jax.core import cost
from w2sr_jax.core.config import PriceConfig
from w2sr_jax.core.rows import Row, row
from w2sr_jax.core.tool_config import CompareConfig, RecipeConfig
from w2sr_jax.core.topology import chip_of
from w2sr_jax.model.flops import FlopsShape

GIB = 1 << 30
OURS = "ours"
BETTER = "the better of eager and torch.compile"
NAMES = {
    "transformers": "transformers' generate",
    "vllm": "vLLM, compiled, unseeded",
    "eager": "transformers, eager",
    "compile": "transformers, torch.compile",
    "trl": "TRL's SFTTrainer",
}


def price_of(config: CompareConfig, about: Mapping[str, Any], cores: int) -> PriceConfig:
    """The price of one device: the config's own, or the table's; nothing where there is none.

    Args:
        about: platform and device of a side.
        cores: of a machine without an accelerator, which counts as one device.
    """
    if config.price.usd_per_device_hour:
        return config.price
    chip = chip_of(about["device"])
    if about["platform"] != "cpu":
        return config.prices.get(chip.name if chip else about["device"], PriceConfig())
    core = config.prices.get("vcpu", PriceConfig())
    usd = core.usd_per_device_hour
    return PriceConfig(usd_per_device_hour=cores * usd, source=f"{cores} x {usd}: {core.source}" if usd else "")


def step_seconds(side: dict[str, Any]) -> list[float]:
    """The mean update of each counted turn."""
    return [statistics.fmean(turn) for turn in side["runs"]]


def p90(side: dict[str, Any]) -> float:
    """The 90th percentile (nearest rank) of all counted updates."""
    ordered = sorted(second for turn in side["runs"] for second in turn)
    return ordered[max(0, math.ceil(0.9 * len(ordered)) - 1)]


def compile_seconds(side: dict[str, Any]) -> float:
    """What the first update took beyond an ordinary one."""
    return max(0.0, side["first_step_seconds"] - statistics.median(step_seconds(side)))


def peak_gib(side: dict[str, Any]) -> float:
    """Of device memory where the device has its own, else resident, from after the first update."""
    return (side["device_peak_bytes"] or side["peak_bytes"]) / GIB


def training_rows(name: str, workload: dict[str, Any], config: CompareConfig) -> list[Row]:
    """The rows of one workload against every peer that ran.

    Args:
        name: of the workload, as rows show it.
        workload: of `training.train_all`, with tokens (of a batch, padding excluded) and flops (of an update).
    """
    sides, ours, found = workload["sides"], workload["sides"][OURS], list[Row]()

    def tokens(side: dict[str, Any]) -> float:  # TRL makes batches of its own
        return side.get("tokens") or workload["tokens"]

    def compared(what: str, unit: str, values: Any) -> None:
        for peer, side in sides.items():
            if peer != OURS and not (peer == "trl" and what.startswith(step)):
                found.append(row(f"{what}, {name}", values(ours), values(side), unit, NAMES[peer]))

    step = "training step" if workload["kind"] == "sft" else "GRPO update"
    compared(step, "s", step_seconds)
    compared(f"{step}, p90", "s", lambda side: [p90(side)])
    if workload["kind"] == "sft":
        compared("training", "tokens/s", lambda side: [tokens(side) / s for s in step_seconds(side)])
    if config.peak_tflops and workload["kind"] == "sft":
        peak = config.peak_tflops * 1e12
        compared(
            "MFU",
            "% of peak",
            lambda side: [
                100 * workload["flops"] * tokens(side) / workload["tokens"] / s / (peak * side["devices"])
                for s in step_seconds(side)
            ],
        )
    compared("peak memory", "GiB", lambda side: [peak_gib(side)])
    compared("start-up", "s", lambda side: [side["startup_seconds"]])
    compared("compiling, first update", "s", lambda side: [compile_seconds(side)])
    if workload["kind"] == "sft":

        def billion(side: dict[str, Any]) -> list[float]:
            return [1e9 * s * side["devices"] / tokens(side) for s in step_seconds(side)]

        compared("a billion tokens", "device-seconds", billion)
        if rate := config.price.usd_per_device_hour / 3600:
            compared("a billion tokens", "USD", lambda side: [s * rate for s in billion(side)])
    return found + best_rows(f"{step}, {name}", found)


def best_rows(what: str, rows: list[Row]) -> list[Row]:
    """One row more: against the better of eager and torch.compile."""
    both = [one for one in rows if one.what == what]
    if len(both) < 2:
        return []
    return [dataclasses.replace(min(both, key=lambda one: one.peer), against=BETTER)]


def generation_rows(name: str, found: dict[str, Any]) -> list[Row]:
    """Tokens a second of each load, and start-up with what the first pass took beyond an ordinary one."""
    sides, ours, rows = found["sides"], found["sides"][OURS], list[Row]()
    for peer, side in sides.items():
        if peer == OURS:
            continue
        for load, runs in side["runs"].items():
            ours_rates, rates = rates_of(ours["runs"][load]), rates_of(runs)
            rows.append(row(f"generation, {found['loads'][load]}", ours_rates, rates, "tokens/s", NAMES[peer]))
        start, peer_start = generation_start(ours), generation_start(side)
        rows.append(row(f"start-up and compiling of generation, {name}", [start], [peer_start], "s", NAMES[peer]))
    return rows


def generation_start(side: dict[str, Any]) -> float:
    """Seconds until an engine answers at its pace."""
    usual = {load: statistics.median(seconds for _, seconds in runs) for load, runs in side["runs"].items()}
    return side["startup_seconds"] + sum(max(0.0, first - usual[load]) for load, first in side["first_seconds"].items())


def rates_of(runs: list[tuple[int, float]]) -> list[float]:
    """Tokens a second of each turn."""
    return [tokens / seconds for tokens, seconds in runs]


def recipe_seconds(recipe: RecipeConfig, shape: FlopsShape, side: dict[str, Any], workload: dict[str, Any]) -> float:
    """Device-seconds of a recipe's SFT at the FLOPs a second that a side had on another model.

    Every row is counted whole, padding included, since that is what is computed without packing.

    Args:
        shape: of the recipe's student.
        side, workload: what was measured, and where.
    """
    tokens = recipe.traces * recipe.max_length * recipe.epochs
    wanted = cost.train_flops(tokens=tokens, context=recipe.max_length, **shape)
    done = workload["flops"] * (side.get("tokens") or workload["tokens"]) / workload["tokens"]
    return wanted / done * statistics.median(step_seconds(side)) * side["devices"]
