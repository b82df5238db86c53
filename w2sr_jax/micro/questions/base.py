"""What one open question adds to the micro experiment: stages, arms to compare, and claims that answer it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.micro.experiment import CLAIMS, ROUTES, TEACHERS, TRAINED, MicroExperiment

Part = tuple[str, str, Any]  # name below seedN/, stage, config
Claims = dict[str, tuple[str, str]]  # sentence -> (higher arm, lower arm)
SHARED_TRACES = {"w2sr": "filter/all.jsonl", "w2sr_p": "filter/correct.jsonl"}
SHARED = {arm: f"{arm}_test" for arm in ("base", "forced", "teacher", "w2sr", "w2sr_p", "grpo")}


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """One comparison: arms evaluated on the same problems, and what is claimed of them."""

    name: str  # of its report's node
    title: str
    arms: Mapping[str, str]  # arm -> node that evaluates it, below seedN/; base and grpo are the ends of RGR
    claims: Claims
    traces: Mapping[str, str] = dataclasses.field(default_factory=dict)  # arm -> what it learned from, below seedN/
    problems: str = "problems/train.jsonl"  # that these answer
    baselines: tuple[str, ...] = ("forced",)
    routes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # arm -> nodes below seedN/
    teachers: Mapping[str, str] = dataclasses.field(default_factory=dict)  # arm -> model below seedN/

    def report(self, experiment: MicroExperiment, seed: int) -> ReportConfig:
        """The section's report of one seed."""
        at = f"@seed{seed}"
        return ReportConfig(
            title=f"{self.title} (seed {seed})",
            arms={arm: (f"{at}/{node}",) for arm, node in self.arms.items()},
            routes={arm: tuple(f"{at}/{node}" for node in nodes) for arm, nodes in self.routes.items()},
            teacher_route=(f"{at}/teacher",) if self.routes else (),
            teachers={arm: f"{at}/{model}" for arm, model in self.teachers.items()},
            trace_sets={arm: f"{at}/{path}" for arm, path in self.traces.items()},
            problems=f"{at}/{self.problems}" if self.traces else "",
            baselines=self.baselines,
            claims=self.claims,
            bootstrap=experiment.bootstrap,
            seed=seed,
        )


def shared() -> Section:
    """What most questions compare with, and what it costs: the micro experiment's own arms and claims.

    These are the paper's three experiments: structure against scale, all against correct and incorrect traces, and
    the share of RL's gain, with what either costs.
    """
    arms = {arm: f"{arm}_test" for arm in ("base", "forced", "teacher", *TRAINED, "grpo")}
    claims = CLAIMS | {"correct traces teach more than all traces: W2SR-P > W2SR": ("w2sr_p", "w2sr")}
    teachers = {arm: f"{model}/export" for arm, model in TEACHERS.items()}
    title = "What the questions are compared with"
    return Section("shared", title, arms, claims, TRAINED, routes=ROUTES, teachers=teachers)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A question's stages of one seed, and its sections."""

    parts: list[Part]
    sections: list[Section]


Question = Callable[[MicroExperiment, int], Asked]


def taught(experiment: MicroExperiment, seed: int, name: str, traces: Mapping[str, str]) -> list[Part]:
    """For each arm a student of its traces and that student's evaluation.

    Args:
        name: of the question; nodes are `NAME/ARM` and `NAME/ARM_test`.
        traces: arm -> file, as `NODE/FILE` below seedN/.
    """
    at = f"@seed{seed}"
    parts: list[Part] = []
    for arm, path in traces.items():
        parts.append((f"{name}/{arm}", "sft", experiment.student(seed, at, f"{at}/{path}")))
        parts.append((f"{name}/{arm}_test", "evaluate", experiment.evaluate(at, f"{at}/{name}/{arm}/export")))
    return parts


def tests(name: str, arms: Mapping[str, Any]) -> dict[str, str]:
    """Arm -> the node that evaluates it, for arms made by `taught`."""
    return {arm: f"{name}/{arm}_test" for arm in arms}
