"""The chips, hours and USD that configs/paper/ states are what its configs and the planned steps give."""

import re

import pytest

from benchmarks import paper_costs
from benchmarks.paper_costs import CONFIGS, FILES, budget_of, experiments, step_of, steps, table
from w2sr_jax.core.files import read_json
from w2sr_jax.core.topology import parse_topology
from w2sr_jax.paper.models import STUDENTS

LINE = re.compile(r"^ +(Chips: .+; hours: .+; USD: .+)$", re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_each_function_states_its_chips_hours_and_usd_as_they_follow_from_its_config(file):
    found = experiments(file)
    stated = {variant: LINE.findall(make.__doc__) for variant, make in found.items()}
    assert stated == {variant: [budget_of(make()).line()] for variant, make in found.items()}
    assert len(LINE.findall((CONFIGS / "paper" / f"{file}.py").read_text())) == len(found)


def test_no_file_of_experiments_is_left_out():
    assert set(FILES) == {path.stem for path in (CONFIGS / "paper").glob("*.py")}


def test_the_readme_has_the_tables():
    text = (CONFIGS / "paper" / "README.md").read_text()
    assert table() in text
    assert paper_costs.steps_table() in text
    assert paper_costs.plans() in text


@pytest.mark.parametrize("key", STUDENTS)
def test_a_student_trains_with_what_its_step_was_planned_with(key):
    student = STUDENTS[key]
    step = step_of(student.student)
    assert step.train == {"grad_accum": student.sft_grad_accum, "remat": student.remat}
    assert (step.rows, step.tokens) == (128, 4096)
    assert step.mesh["fsdp"] * step.mesh["data"] * step.mesh["tensor"] == parse_topology(step.slice).devices
    assert step.rows == step.train["grad_accum"] * step.mesh["fsdp"]  # a row of a microbatch on each data group
    assert f"--config.topology={step.slice}" in step.command
    assert ("--config.train.remat" in step.command) == (step.train["remat"] != "full")


def test_the_planned_steps_of_qwen_stand_in_the_plans_table():
    text = (CONFIGS / "plan" / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for key in ("7b", "14b", "32b"):
        step = steps()[key]
        rows = [line for line in lines if key in line.lower() and step.slice in line and f" {step.seconds} " in line]
        assert len(rows) == 1, key


def test_published_hours_stand_beside_the_estimates():
    published = read_json(CONFIGS / "paper" / "costs.json")["published_grpo"]["hours"]
    text = (CONFIGS / "paper" / "README.md").read_text()
    assert all(hours in text for hours in published.values())
