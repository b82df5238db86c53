"""Every config under configs/ is built and validated here; a file that no test knows fails."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.paper import TEACHERS
from w2sr_jax.core.runtime import load_config_file
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.core.tool_config import CompareConfig, PlanConfig, PriceTable
from w2sr_jax.core.topology import CHIPS, parse_topology
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.stages import report, run

ROOT = Path(__file__).parent.parent / "configs"
SIX = ("gsm8k", "math500", "minerva_math", "olympiadbench", "aime24", "amc23")


def pairs(*students: str) -> list[str]:
    return [f"{student}-from-{teacher.lower()}" for student in students for teacher in TEACHERS]


# file -> its variants; "" is none
VARIANTS = {
    "compare.py": ["", "cpu", "cpu-packed", "cpu-30m", "micro", "gpu-0.5b", "gpu-1.5b", "tiny"],
    "experiments/micro.py": ["", "five", "tiny"],
    **{
        f"experiments/micro_{name}.py": ["", "one", "tiny"]
        for name in ("all", "domains", "ensembles", "errors", "family", "filtering", "supervision")
    },
    "experiments/real.py": [""],
    "paper/qwen25.py": ["", *pairs("7b", "14b", "32b")],
    "paper/qwen25_math.py": ["", *pairs("math-7b")],
    "paper/llama31.py": ["", *pairs("8b")],
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
PAPER = [(file, variant) for file, variant in ALL if file.startswith("paper/")]


def load(file: str, variant: str = ""):
    config = load_config_file(f"{ROOT / file}:{variant}")
    for field in dataclasses.fields(config):  # what a command line must give
        if field.metadata.get("required") and getattr(config, field.name) == "":
            setattr(config, field.name, "given")
    if variant == "traces":
        config.traces = ("given",)
    return config


def stages(config, stage):
    return {node.name: node.config for node in config.nodes() if node.stage == stage}


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
        run._stage(node.stage)
    assert nodes[-1].stage == "report"


def test_the_variants_are_those_that_the_files_offer():
    for file, variants in VARIANTS.items():
        if file.startswith("paper/"):
            with pytest.raises(UsageError) as error:
                load(file, "nothing")
            assert re.search(r"only STUDENT-from-TEACHER: (.*) \(W2SR_DEBUG", str(error.value))[1] == ", ".join(
                variants[1:]
            )


@pytest.mark.parametrize(("file", "variant"), PAPER)
def test_a_paper_config_names_its_models_by_hub_id_and_follows_the_recipe(file, variant):
    config = load(file, variant)
    assert re.fullmatch(r"hkust-nlp/Qwen-2.5-[\w.-]+-SimpleRL-Zoo", config.reasoner)
    assert config.reasoner == config.non_reasoner.replace("Qwen/Qwen2.5", "hkust-nlp/Qwen-2.5") + "-SimpleRL-Zoo"
    assert config.problems == "hf:hkust-nlp/SimpleRL-Zoo-Data:simplelr_qwen_level3to5/train"
    assert config.benchmarks == tuple(f"bench:{name}" for name in SIX)
    students = stages(config, "sft")
    assert list(students) == ["w2sr", "w2sr_p", "w2sr_n", "non_reasoner_taught"]
    for student in students.values():
        assert (student.data.max_length, student.data.batch_size, student.data.packing) == (4096, 128, False)
        assert (student.optimizer.schedule, student.optimizer.warmup_ratio) == ("cosine", 0.1)
        assert student.train.dtype == "bfloat16"
        assert (student.optimizer.learning_rate, student.epochs) == ((2e-5, 10) if "math" in file else (1e-5, 5))
    assert [s.data.traces for s in students.values()] == [
        "@filter/all.jsonl",
        "@filter/correct.jsonl",
        "@filter/incorrect.jsonl",
        "@non_reasoner_filter/all.jsonl",
    ]


@pytest.mark.parametrize(("file", "variant"), PAPER)
def test_the_ceiling_of_a_paper_config_is_simplerl_s_recipe(file, variant):
    (grpo,) = stages(load(file, variant), "grpo").values()
    assert (grpo.prompts_per_step, grpo.minibatch_prompts, grpo.epochs_per_step) == (1024, 256, 1)
    assert (grpo.sampling.n, grpo.sampling.temperature) == (8, 1.0)
    assert grpo.sampling.max_tokens == (3072 if "math" in file else 8192)
    assert (grpo.loss.kl, grpo.loss.entropy) == (1e-3 if "32b-from" in variant else 1e-4, 1e-3)
    assert (grpo.loss.clip_low, grpo.loss.clip_high, grpo.loss.aggregate) == (0.2, 0.2, "token_mean")
    optimizer = grpo.optimizer
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.weight_decay) == (5e-7, "constant", 1e-2)
    assert (optimizer.b1, optimizer.b2, optimizer.clip_norm) == (0.9, 0.999, 1.0)


@pytest.mark.parametrize(("file", "variant"), PAPER)
def test_all_compared_arms_of_a_paper_config_are_evaluated_alike(file, variant):
    config = load(file, variant)
    evaluations = stages(config, "evaluate")
    (report,) = stages(config, "report").values()
    assert list(report.arms) == ["base", "teacher", "w2sr", "w2sr_p", "w2sr_n", "non_reasoner_taught", "grpo"]
    assert len(evaluations) == 7 * 6
    compared = {e.protocol for name, e in evaluations.items() if name.split("/")[1] not in report.baselines}
    assert len(compared) == 1
    assert ("teacher" in report.baselines) == ("llama" in file)


@pytest.mark.parametrize(("file", "variant"), PAPER)
def test_a_published_ceiling_replaces_training_one(file, variant):
    config = load(file, variant)
    config.ceiling = "published"
    assert not stages(config, "grpo")
    assert stages(config, "evaluate")["eval/grpo/0"].model == config.published_ceiling
    assert config.published_ceiling.endswith("-SimpleRL-Zoo")
    config.published_ceiling = ""
    with pytest.raises(UsageError, match="ceiling=published needs the id"):
        validate(config)


def test_every_paper_experiment_says_what_to_compare_with_and_that_costs_come_from_plan():
    for file in {file for file, _ in PAPER}:
        text = (ROOT / file).read_text()
        assert "w2sr plan" in text
        assert text.count("Compare:") == text.count("def student_")
        assert "SimpleRL-Zoo: base" in load(file).published
    assert "43.77" in load("paper/qwen25_math.py").published


@pytest.mark.parametrize(("file", "variant"), PAPER)
def test_the_published_rows_of_a_paper_config_are_those_of_the_table(file, variant):
    table = json.loads((ROOT / "paper" / "simplerl_zoo.json").read_text())
    student = variant.split("-from-")[0] or {"paper/qwen25.py": "7b", "paper/qwen25_math.py": "math-7b"}.get(file, "8b")
    row = table["rows"]["llama-8b" if student == "8b" else student]
    base, after = (" ".join(map(str, row[arm])) for arm in ("base", "rl"))
    assert load(file, variant).published.endswith(f"SimpleRL-Zoo: base {base}, RL {after}")
    assert tuple(table["problems"]) == SIX


@pytest.mark.parametrize("variant", [v for v in VARIANTS["report.py"] if v.startswith("simplerl")])
def test_a_report_against_published_rows_is_made(variant, tmp_path, capsys):
    config = load("report.py", variant)
    config.student_row, config.bootstrap = tuple((a + b) / 2 for a, b in zip(*config.rows.values())), 200
    found = report.main(config, str(tmp_path))
    cell = found["rgr"]["student"]["gsm8k"]
    assert cell.get("value", 0.5) == pytest.approx(0.5)
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
