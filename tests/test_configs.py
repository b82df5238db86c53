"""Every config under configs/ is built and validated here; a file that no test knows fails."""

import dataclasses
import json
from pathlib import Path

import pytest

from w2sr_jax.core.command_line import load_config_file, parse
from w2sr_jax.core.config import validate
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.core.tool_config import CompareConfig, PlanConfig, PriceTable
from w2sr_jax.core.topology import CHIPS, parse_topology
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.paper.models import STUDENTS, TEACHERS
from w2sr_jax.paper.pick import pairs
from w2sr_jax.stages import report, run

ROOT = Path(__file__).parent.parent / "configs"
SIX = ("gsm8k", "math500", "minerva_math", "olympiadbench", "aime24", "amc23")


# file of configs/paper/ -> its experiments, and how a variant goes on after the student
QUESTIONS = {
    "scale": (("every_size",), ""),
    "errors": (("slip", "answer", "drop", "shuffle", "rule", "every_kind"), "-from-1.5b"),
    "supervision": (("answer_only", "reasoning_only", "human", "self_distillation", "every_kind"), "-from-llama-8b"),
    "ensembles": (("mix", "majority", "agreement", "hygiene", "every_way"), ""),
    "filtering": (("majority", "surprisal", "length", "structure", "difficulty", "every_score"), "-from-math-7b"),
    "domains": (("letter_counting", "syllogism", "spell_backward", "knights_knaves", "multiple_choice"), "-from-0.5b"),
}
# file -> its variants; "" is none
VARIANTS = {
    "compare.py": ["", "cpu", "cpu-packed", "cpu-30m", "micro", "gpu-0.5b", "gpu-1.5b", "tiny"],
    "experiments/micro.py": ["", "five", "tiny"],
    **{
        f"experiments/micro_{name}.py": ["", "one", "tiny"]
        for name in ("all", "domains", "ensembles", "errors", "family", "filtering", "supervision")
    },
    "experiments/real.py": [""],
    "paper/qwen25.py": ["", "7b", "14b", "32b", *pairs(("7b", "14b", "32b"))],
    "paper/qwen25_math.py": ["", "math-7b", *pairs(("math-7b",))],
    "paper/llama31.py": ["", "8b", *pairs(("8b",))],
    "paper/families.py": ["", "7b", "8b", *pairs(("7b", "8b"), TEACHERS)],
    **{
        f"paper/{name}.py": ["", *names, *(f"{names[-1]}/{student}{rest}" for student in STUDENTS)]
        for name, (names, rest) in QUESTIONS.items()
    },
    "plan_published.py": ["", "mistral-7b", "llama3.1-8b", "llama3.1-8b-16", "llama3.1-70b", "llama2-70b"],
    "plan.py": ["", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-14b", "qwen2.5-32b"],
    "prices.py": [""],
    "report.py": [
        "",
        *(f"simplerl-{m}" for m in ("0.5b", "1.5b", "7b", "math-7b", "14b", "32b", "llama-8b")),
        "traces",
    ],
}
ALL = [(file, variant) for file, variants in VARIANTS.items() for variant in variants]


def load(file: str, variant: str = ""):
    config = load_config_file(f"{ROOT / file}:{variant}")
    for field in dataclasses.fields(config):  # what a command line must give
        if field.metadata.get("required") and getattr(config, field.name) == "":
            setattr(config, field.name, "given")
    if variant == "traces":
        config.traces = ("given",)
    return config


def test_every_config_file_is_known_here():
    assert {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py")} == set(VARIANTS)


@pytest.mark.parametrize(("file", "variant"), ALL)
def test_a_config_builds_and_each_of_its_stages_is_valid(file, variant):
    config = load(file, variant)
    validate(config)
    if isinstance(config, CompareConfig | ReportConfig | PlanConfig | PriceTable):
        return
    nodes = run.in_order(config.nodes())
    for node in nodes:
        validate(node.config, node.name)
        run.stage_of(node)
    assert nodes[-1].stage == "report"


def keys(config, prefix="config"):
    """(key, value) of all that a command line may set: no tables."""
    for field in dataclasses.fields(config):
        key, value = f"{prefix}.{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys(value, key)
        elif not isinstance(value, dict):
            yield key, value


@pytest.mark.parametrize(("file", "variant"), [(file, variants[-1]) for file, variants in VARIANTS.items()])
def test_every_key_of_a_config_file_may_be_set_on_the_command_line(file, variant):
    config = load(file, variant)
    given = [f"--{key}={value}" for key, value in keys(config)]
    line = parse([f"--config={ROOT / file}:{variant}", "--workdir=somewhere", *given], object)
    assert dict(keys(line.config)) == dict(keys(config))


@pytest.mark.parametrize("variant", [v for v in VARIANTS["report.py"] if v.startswith("simplerl")])
def test_a_report_against_published_rows_is_made(variant, tmp_path, capsys):
    config = load("report.py", variant)
    config.student_row, config.bootstrap = tuple((a + b) / 2 for a, b in zip(*config.rows.values())), 200
    found = report.main(config, str(tmp_path))
    cell = found["rgr"]["student"]["gsm8k"]
    assert cell["value"] == pytest.approx(0.5)
    assert "undefined" in found["rgr"]["student"]["aime24"] or variant in ("simplerl-math-7b", "simplerl-32b")
    assert "hkust-nlp/simpleRL-reason at cf1c785" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("variant", VARIANTS["plan.py"])
def test_a_plan_has_a_model_a_price_for_each_chip_and_slices_that_exist(variant):
    config = load("plan.py", variant)
    assert set(config.prices) >= set(CHIPS)
    assert all(price.usd_per_device_hour > 0 and price.source for price in config.prices.values())
    ModelConfig.from_hf(json.loads(Path(config.model).read_text()))
    slices = json.loads((ROOT / "plan" / "topologies.json").read_text())
    assert list(slices) == VARIANTS["plan.py"][1:]
    assert all(parse_topology(name).chip for names in slices.values() for name in names)
