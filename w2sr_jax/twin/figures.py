"""From what the sides measured to rows of ours, peer and ratio. Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from typing import Any

from w2sr_jax.core import cost
from w2sr_jax.core.rows import Row, row
from w2sr_jax.core.stage_config import CompareConfig, RecipeConfig
from w2sr_jax.model.flops import FlopsShape

GIB = 1 << 30
OURS = "ours"
NAMES = {"eager": "transformers, eager", "compile": "transformers, torch.compile", "trl": "TRL's SFTTrainer"}


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
    sides, tokens = workload["sides"], workload["tokens"]
    ours, found = sides[OURS], list[Row]()

    def compared(what: str, unit: str, values: Any) -> None:
        for peer, side in sides.items():
            if peer != OURS:
                found.append(row(f"{what}, {name}", values(ours), values(side), unit, NAMES[peer]))

    compared("training step", "s", step_seconds)
    compared("training", "tokens/s", lambda side: [tokens / s for s in step_seconds(side)])
    compared("training step, p90", "s", lambda side: [p90(side)])
    if config.peak_tflops:
        peak = config.peak_tflops * 1e12
        compared(
            "MFU",
            "% of peak",
            lambda side: [100 * workload["flops"] / s / (peak * side["devices"]) for s in step_seconds(side)],
        )
    compared("peak memory of training", "GiB", lambda side: [peak_gib(side)])
    compared("start-up", "s", lambda side: [side["startup_seconds"]])
    compared("compiling, first update", "s", lambda side: [compile_seconds(side)])
    compared(
        "a billion tokens",
        "device-seconds",
        lambda side: [1e9 * s * side["devices"] / tokens for s in step_seconds(side)],
    )
    if config.price.usd_per_device_hour:
        rate = config.price.usd_per_device_hour / 3600
        compared(
            "a billion tokens",
            "USD",
            lambda side: [1e9 * s * side["devices"] / tokens * rate for s in step_seconds(side)],
        )
    found += best_rows(name, found)
    return found


def best_rows(name: str, rows: list[Row]) -> list[Row]:
    """The training step against the better of eager and torch.compile."""
    both = [one for one in rows if one.what == f"training step, {name}" and one.against != NAMES["trl"]]
    if len(both) < 2:
        return []
    best = min(both, key=lambda one: one.peer)
    return [
        Row(
            what=best.what, ours=best.ours, peer=best.peer, unit=best.unit, runs=best.runs,
            against="the better of eager and torch.compile",
        )
    ]  # fmt: skip


def recipe_seconds(recipe: RecipeConfig, shape: FlopsShape, side: dict[str, Any], flops: float) -> float:
    """Device-seconds of a recipe's SFT at the FLOPs a second that a side had on another model.

    Every row is counted whole, padding included, since that is what is computed without packing.

    Args:
        shape: of the recipe's student.
        flops: of the update that was measured.
    """
    tokens = recipe.traces * recipe.max_length * recipe.epochs
    wanted = cost.train_flops(tokens=tokens, context=recipe.max_length, **shape)
    return wanted / flops * statistics.median(step_seconds(side)) * side["devices"]
