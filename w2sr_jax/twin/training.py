"""One workload trained by every side: first the same curve, then, in turns, the same number of steps.

A workload is a batch shape. Every side starts from the same weights in a process of its own and reads the same batches.
Each trains alone while the others wait; turns are short and their order changes, so that whatever the machine does
besides meets all sides alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core.tool_config import CompareConfig
from w2sr_jax.twin.dump import without_old_logprobs
from w2sr_jax.twin.side import Side
from w2sr_jax.twin.sides import OURS, Sides, groups

TRL = "trl"
TRL_STEPS = 5  # its warm-up: it has no curve to prove


@dataclasses.dataclass(slots=True)
class Curve:
    """What a side's updates gave and took, in order."""

    loss: list[float] = dataclasses.field(default_factory=list)
    grad_norm: list[float] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)

    def add(self, answer: Mapping[str, list[float]]) -> None:
        self.loss += answer["loss"]
        self.grad_norm += answer["grad_norm"]
        self.seconds += answer["seconds"]


def train_all(
    config: CompareConfig, kind: str, directory: Path, total: int, threads: int, env: Mapping[str, str]
) -> dict[str, Any]:
    """All sides' curves, timings and memory.

    Args:
        config: sft.model is a directory here, sft.data has the rows and tokens of this workload.
        kind: "sft" or "grpo".
        directory: holds batches/.
        total: updates that the schedule is made for.

    Returns:
        sides (name -> what it measured), parity (peer -> how its curves lie to ours), missing (peer -> why).
    """
    steps = config.parity_steps if kind == "sft" else config.grpo_parity_steps
    common = {
        "model": str(config.sft.model),
        "batches": str(directory / "batches"),
        "data": dataclasses.asdict(config.sft.data),
        "optimizer": dataclasses.asdict(config.sft.optimizer),
        "train": dataclasses.asdict(config.sft.train),
        "mesh": dataclasses.asdict(config.sft.mesh),
        "loss": dataclasses.asdict(config.grpo_loss),
        "total": total,
        "threads": threads,
    }
    if kind == "grpo" and without_old_logprobs(directory / "batches"):
        Side(OURS, common | {"side": "jax_old_logprobs"}, env).close()
    requests: dict[str, dict[str, Any]] = {OURS: {"side": f"jax_{kind}"}}
    for peer in config.peers:
        if peer != TRL:
            requests[peer] = {"side": f"torch_{kind}", "compile": peer == "compile"}
        elif kind == "sft":
            requests[peer] = {"side": "trl_sft", "directory": str(directory / TRL)}
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    platform = ""
    for together in groups({name: common | request for name, request in requests.items()}, env):
        with Sides(together, env, platform) as sides:
            curves, platform = _same_steps(steps, sides), sides.platform
            runs = _turns(config, sides, steps)
            for name, side in list(sides.alive.items()):
                if about := sides.ask(name, {"do": "describe"}):
                    found[name] = about | {
                        "startup_seconds": side.startup_seconds,
                        "first_step_seconds": curves[name].seconds[0],
                        "curve": dataclasses.asdict(curves[name]),
                        "runs": runs[name],
                    }
            missing |= sides.missing
    # TRL makes batches of its own of the same traces: another order, so no curve to hold against ours.
    all_curves = {name: Curve(**one["curve"]) for name, one in found.items() if name != TRL}
    if kind == "sft":
        tolerances = (config.loss_tolerance, config.norm_tolerance)
    else:
        tolerances = (config.grpo_tolerance, config.grpo_tolerance)
    # Advantages have unit variance: a GRPO loss is a sum of terms of order one, and may itself be near zero.
    least = 0.0 if kind == "sft" else 1.0
    ours = all_curves.pop(OURS)
    parity = {name: agreement(ours, curve, *tolerances, least) for name, curve in all_curves.items()}
    return {"kind": kind, "sides": found, "parity": parity, "missing": missing}


def agreement(
    ours: Curve, peer: Curve, loss_tolerance: float, norm_tolerance: float, least: float = 0.0
) -> dict[str, Any]:
    """How far two curves are apart: the largest relative difference of a step, and where.

    Args:
        least: losses below this in size are compared with it instead.
    """

    def largest(a: list[float], b: list[float], least: float) -> tuple[float, int]:
        gaps = [
            abs(x - y) / max(abs(x), least, 1e-30) if math.isfinite(x) and math.isfinite(y) else math.inf
            for x, y in zip(a, b, strict=True)
        ]
        step = max(range(len(gaps)), key=gaps.__getitem__)
        return gaps[step], step

    loss, loss_step = largest(ours.loss, peer.loss, least)
    norm, norm_step = largest(ours.grad_norm, peer.grad_norm, 0.0)
    return {
        "steps": len(ours.loss),
        "loss_gap": loss,
        "loss_step": loss_step,
        "loss_tolerance": loss_tolerance,
        "norm_gap": norm,
        "norm_step": norm_step,
        "norm_tolerance": norm_tolerance,
        "holds": loss <= loss_tolerance and norm <= norm_tolerance,
    }


def _same_steps(steps: int, sides: Sides) -> dict[str, Curve]:
    """The first updates of every side; the very first compiles."""
    curves = {}
    for name in list(sides.alive):
        logging.info("%s: %d updates for parity", name, steps)
        curves[name] = Curve()
        more = (min(steps, TRL_STEPS) if name == TRL else steps) - 1
        requests: list[dict[str, Any]] = [{"do": "steps", "first": 0, "count": 1}, {"do": "mark_memory"}]
        if more > 0:
            requests.append({"do": "steps", "first": 1, "count": more})
        for request in requests:
            if (answer := sides.ask(name, request)) is None:
                break
            if request["do"] == "steps":
                curves[name].add(answer)
    return curves


def _turns(config: CompareConfig, sides: Sides, first: int) -> dict[str, list[list[float]]]:
    """Seconds of the counted updates: side -> a list a counted turn."""
    runs: dict[str, list[list[float]]] = {name: [] for name in sides.alive}
    for turn in range(config.runs + 1):
        for name in in_turn(list(sides.alive), turn):
            # The first update of a turn finds the caches as another side left them: it is not counted.
            answer = sides.ask(name, {"do": "steps", "first": first, "count": 1 + config.steps_per_run})
            if turn and answer:
                runs[name].append(answer["seconds"][1:])
        first += 1 + config.steps_per_run
        if turn:
            last = {name: runs[name][-1] for name in sides.alive}
            shown = ", ".join(f"{name} {sum(found) / len(found):.4g}" for name, found in last.items())
            logging.info("turn %d of %d, seconds an update: %s", turn, config.runs, shown)
    return runs


def in_turn(names: list[str], turn: int) -> list[str]:
    """Their order in a turn: each comes first in turn."""
    first = turn % max(1, len(names))
    return names[first:] + names[:first]
