"""Hours and money of an experiment's training, from one planned SFT step of its student.

Counted are the students' SFT and the GRPO ceiling. Traces, evaluation and compilation are not: `w2sr plan` estimates no
whole generation.

SFT: epochs x traces / batch steps, each as long as the planned one; a student has at most one trace a training problem.

GRPO, an upper bound by FLOPs: every response is counted at its longest, behind a prompt of PROMPT_TOKENS. At the
FLOPs a second of the planned SFT step, a token's update costs what training on it costs, and the old logprobs and the
reference a forward pass each, a third of that. Decoding is bound by memory: writing a token is assumed to take as long
as training on it, three times its share of FLOPs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from w2sr_jax.core import cost, gym
from w2sr_jax.core.references import needed, references
from w2sr_jax.core.stage_config import GRPOConfig, Node, SFTConfig
from w2sr_jax.core.topology import parse_topology

if TYPE_CHECKING:
    from w2sr_jax.model.flops import FlopsShape

LEVEL_3_TO_5 = 8400  # training problems of SimpleRL-Zoo, about
PROMPT_TOKENS = 1024  # SimpleRL-Zoo's limit
PASSES = 1 + 1 / 3 + 1 / 3 + 1  # update, old logprobs, reference, writing: in units of training on a token


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A planned SFT step: a row of configs/paper/costs.json."""

    students: tuple[str, ...]  # hub ids that have this size
    shape: str  # file of configs/plan/ with their sizes
    slice: str
    mesh: dict[str, int]
    train: dict[str, Any]  # what the plan has that is not the default
    rows: int
    tokens: int  # of a row
    seconds: float
    command: str
    made: str  # date and versions

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Step:
        return cls(**(row | {"students": tuple(row["students"])}))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What training takes on a slice; GRPO is 0 where the ceiling is a published model."""

    slice: str
    sft_hours: float
    grpo_hours: float  # at most
    usd_per_hour: float  # of the slice

    def line(self) -> str:
        """As the experiments of configs/paper/ state it."""
        hours, usd = f"{self.sft_hours:.1f} SFT", f"{self.sft_hours * self.usd_per_hour:,.0f}"
        if self.grpo_hours:
            hours += f" + at most {self.grpo_hours:.0f} GRPO"
            usd += f" + at most {self.grpo_hours * self.usd_per_hour:,.0f}"
        return f"Chips: {self.slice} ({parse_topology(self.slice).devices}); hours: {hours}; USD: {usd}"


def budget(nodes: Sequence[Node], step: Step, shape: FlopsShape, usd_per_device_hour: float) -> Budget:
    """The budget of an experiment whose student the step was planned for.

    Args:
        shape: sizes of the student, for the share of attention in longer sequences.
    """
    sft = [sft_hours(node.config, examples(node, nodes), step) for node in nodes if node.stage == "sft"]
    grpo = [grpo_hours(node.config, step, shape) for node in nodes if node.stage == "grpo"]
    return Budget(
        slice=step.slice,
        sft_hours=sum(sft),
        grpo_hours=sum(grpo),
        usd_per_hour=parse_topology(step.slice).devices * usd_per_device_hour,
    )


def examples(node: Node, nodes: Sequence[Node]) -> int:
    """Most traces that an SFT node can learn from: one a problem, or as many as they were drawn down to."""
    names = {other.name for other in nodes}
    before = needed(nodes, references(node.config, names))
    drawn = [n.config.select.size for n in before if n.stage == "transform" and n.config.what == "select"]
    if sizes := [size for size in drawn if size]:
        return min(sizes)
    source = node.config.data.problems
    return gym.parse_source(source)[1] if source.startswith(gym.PREFIX) else LEVEL_3_TO_5


def sft_hours(config: SFTConfig, traces: int, step: Step) -> float:
    """Of one student; rows of a step are counted as full."""
    rows_per_s = step.rows * step.tokens / config.data.max_length / step.seconds
    return config.epochs * traces / rows_per_s / 3600


def grpo_hours(config: GRPOConfig, step: Step, shape: FlopsShape) -> float:
    """Of the ceiling, at most: see the module's text."""
    length = PROMPT_TOKENS + config.sampling.max_tokens
    tokens = config.steps * config.prompts_per_step * config.sampling.n * length
    longer = cost.train_flops(tokens=1, context=length, **shape) / cost.train_flops(
        tokens=1, context=step.tokens, **shape
    )
    return PASSES * longer * tokens / (step.rows * step.tokens / step.seconds) / 3600
