import importlib.util
import json
from pathlib import Path

import pytest

from w2sr_jax.core.config import to_dict, validate
from w2sr_jax.core.files import read_jsonl
from w2sr_jax.core.records import GradedTrace, Problem
from w2sr_jax.stages import run

FILE = Path(__file__).parents[2] / "configs" / "experiments" / "micro.py"


@pytest.fixture(scope="module")
def micro_config():
    found = importlib.util.spec_from_file_location("micro_experiment", FILE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("variant", [None, "five", "tiny"])
def test_every_node_is_valid_and_follows_what_it_reads(micro_config, variant):
    config = micro_config.get_config(variant)
    validate(config)
    nodes = run.in_order(config.nodes())
    for node in nodes:
        validate(node.config, node.name)
    assert nodes[-1].stage == "report"


def test_five_seeds_share_nothing_but_the_summary(micro_config):
    nodes = micro_config.get_config("five").nodes()
    names = [node.name for node in nodes]
    for node in nodes[:-1]:
        seed = node.name.split("/")[0]
        assert all(needed.split("/")[0] == seed for needed in run.references(node.config, names)), node.name
    assert run.references(nodes[-1].config, names) == [f"seed{seed}/report" for seed in range(5)]


def test_only_evaluation_reads_the_test_problems(micro_config):
    for node in micro_config.get_config().nodes():
        reads_test = "test.jsonl" in json.dumps(to_dict(node.config))
        assert reads_test == (node.stage == "evaluate"), node.name


def test_arms_differ_in_their_traces_only(micro_config):
    config = micro_config.get_config()
    students = [node.config for node in config.nodes() if node.stage == "sft"]
    for student in students:
        student.data.traces, student.optimizer.learning_rate = "", 0.0
    assert len(students) == 5
    assert all(student == students[0] for student in students)


def test_one_decoding_protocol_serves_every_arm_but_the_forced_one(micro_config):
    evaluations = {n.name: n.config for n in micro_config.get_config().nodes() if n.stage == "evaluate"}
    assert evaluations.pop("seed0/forced_test").response_prefix == "<work>"
    for config in evaluations.values():
        config.model = ""
    assert len({repr(config) for config in evaluations.values()}) == 1
    assert next(iter(evaluations.values())).sampling.temperature == 0.0


def test_an_unknown_variant_is_refused(micro_config):
    with pytest.raises(ValueError, match="no variant 'six'"):
        micro_config.get_config("six")


@pytest.mark.slow
def test_the_tiny_experiment_runs_and_is_reused(micro_config, tmp_path):
    config = micro_config.get_config("tiny")
    assert set(run.main(config, str(tmp_path)).values()) == {"done"}
    report = json.loads((tmp_path / "seed0" / "report" / "report.json").read_text())
    assert {"base", "forced", "teacher", "w2sr", "w2sr_p", "w2sr_n", "grpo"} <= report["arms"].keys()

    splits = {name: read_jsonl(tmp_path / f"seed0/problems/{name}.jsonl", Problem) for name in ("train", "test")}
    trained_on = {trace.problem_id for trace in read_jsonl(tmp_path / "seed0/filter/all.jsonl", GradedTrace)}
    assert trained_on <= {p.id for p in splits["train"]}
    assert not {p.problem for p in splits["train"]} & {p.problem for p in splits["test"]}

    assert set(run.main(config, str(tmp_path)).values()) == {"reused"}
