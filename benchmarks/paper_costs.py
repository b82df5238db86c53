"""What the experiments of configs/paper/ cost, from configs/paper/costs.json: `python -m benchmarks.paper_costs`.

Prints the tables of configs/paper/README.md. Each function's line `Chips: ...` is that of `budget_of`.
"""

from __future__ import annotations

import functools
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.files import read_json
from w2sr_jax.core.topology import parse_topology
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.flops import FlopsShape, flops_shape
from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.models import STUDENTS
from w2sr_jax.paper.pick import pair
from w2sr_jax.planning.budget import Budget, Step, budget
from w2sr_jax.reporting.tables import markdown_table

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = (
    *("qwen25", "qwen25_math", "llama31", "families", "scale"),
    *("errors", "supervision", "ensembles", "filtering", "domains"),
)


@functools.cache
def steps() -> dict[str, Step]:
    """Key of a student's size -> its planned step."""
    return {key: Step.from_json(row) for key, row in read_json(CONFIGS / "paper" / "costs.json")["steps"].items()}


def step_of(student: str) -> Step:
    """The planned step of a student by its hub id."""
    return next(step for step in steps().values() if student in step.students)


@functools.cache
def shape_of(file: str) -> FlopsShape:
    return flops_shape(ModelConfig.from_hf(read_json(CONFIGS / "plan" / file)))


@functools.cache
def prices() -> dict[str, Any]:
    return load_config_file(str(CONFIGS / "prices.py")).prices


def budget_of(config: PaperExperiment) -> Budget:
    """Of an experiment as its config file makes it."""
    step = step_of(config.student)
    chip = parse_topology(step.slice).chip
    assert chip is not None
    return budget(config.nodes(), step, shape_of(step.shape), prices()[chip.name].usd_per_device_hour)


def experiments(file: str) -> Mapping[str, Callable[..., PaperExperiment]]:
    """EXPERIMENTS of configs/paper/FILE.py: variant -> function."""
    return runpy.run_path(str(CONFIGS / "paper" / f"{file}.py"))["EXPERIMENTS"]


def table() -> str:
    """Every experiment with its command's variant."""
    rows = [["`--config=configs/paper/`", "students", "chips", "hours", "USD"]]
    for file in FILES:
        for variant, make in experiments(file).items():
            config = make()
            cells = [part.partition(": ")[2] for part in budget_of(config).line().split("; ")]
            students = sum(node.stage == "sft" for node in config.nodes())
            rows.append([f"`{file}.py:{variant}`", str(students), *cells])
    return markdown_table(rows)


def steps_table() -> str:
    """The planned step of each student, and what one SFT and the ceiling take by it."""
    published = read_json(CONFIGS / "paper" / "costs.json")["published_grpo"]["hours"]
    rows = [["student", "chips", "step, s", "one SFT, h", "ceiling, h, at most", "ceiling as published", "planned"]]
    for key, student in STUDENTS.items():
        step, found = step_of(student.student), budget_of(pair(key, "1.5b"))
        one = found.sft_hours / sum(node.stage == "sft" for node in pair(key, "1.5b").nodes())
        chips = f"{step.slice} ({parse_topology(step.slice).devices})"
        cells = [chips, f"{step.seconds}", f"{one:.2f}", f"{found.grpo_hours:.0f}", published.get(key, "-")]
        rows.append([key, *cells, step.made])
    return markdown_table(rows)


def plans() -> str:
    """The commands of these steps."""
    return "\n".join(f"{step.command} --workdir=runs/plan/{key}" for key, step in steps().items())


if __name__ == "__main__":
    print(table(), steps_table(), plans(), sep="\n\n")
