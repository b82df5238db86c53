"""The paper's experiments run to their reports with tiny models: every stage, through the code of the full size."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from flax import nnx

from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.config import CheckpointConfig
from w2sr_jax.core.files import read_json, read_jsonl, write_jsonl
from w2sr_jax.core.records import GradedTrace, Problem
from w2sr_jax.model import hf
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.stages import run, sft

ROOT = Path(__file__).parents[2] / "configs" / "paper"
CONTEXT = 440  # the templates take about 250 of the tiny tokenizer's tokens, which are characters; problems up to 153


def widened(source, target):
    """A copy of a model with room for a prompt in full."""
    shutil.copytree(source, target)
    raw = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(raw | {"max_position_embeddings": CONTEXT}))
    return target


@pytest.fixture(scope="module")
def models(files, tmp_path_factory):
    """{name: random model "qwen2", "llama", the larger "large"; "reasoner", "llama_reasoner" that answer 1 to 4}."""
    root = tmp_path_factory.mktemp("paper")
    qwen = widened(Path(files.model), root / "qwen2")
    size = hf.load_config(qwen)
    others = {
        "llama": dataclasses.replace(size, family="llama", attention_bias=False),
        "large": dataclasses.replace(size, num_layers=2),
    }
    for name, other in others.items():
        hf.save(Decoder(other, rngs=nnx.Rngs(1)), root / name, "float32", tokenizer_from=qwen)
    for name, base, template in (("reasoner", "qwen2", "qwen-boxed"), ("llama_reasoner", "llama", "abel")):
        config = files.sft(model=str(root / base), steps=40, checkpoint=CheckpointConfig(every_steps=0, keep_last=1))
        config.data = dataclasses.replace(config.data, template=template, max_length=CONTEXT)
        sft.main(config, str(root / name))
    return {name: str(root / name) for name in ("qwen2", "llama", "large", "reasoner", "llama_reasoner")}


@pytest.fixture
def shrunk(models, files, one_device, tmp_path):
    """shrunk(FILE.py:VARIANT, student, benchmarks, ...): an experiment with its sizes, models and data replaced."""
    write_jsonl(tmp_path / "other.jsonl", read_jsonl(files.problems, Problem)[:4])

    def load(picked, student, **changes):
        config = load_config_file(f"{ROOT / picked}")
        config.student = config.published_ceiling = models[student]
        config.problems, config.benchmarks = files.problems, (str(tmp_path / "other.jsonl"),)
        config.trace_tokens, config.epochs, config.max_length, config.batch_size = 8, 1.0, CONTEXT, 4
        config.grpo_steps, config.grpo_prompts, config.grpo_minibatch, config.grpo_samples = 1, 4, 2, 4
        config.grpo_tokens, config.sft_grad_accum, config.grpo_grad_accum = 6, 2, 2
        config.dtype, config.decode_batch, config.mesh, config.bootstrap = "float32", 32, one_device, 200
        config.remat = "full"  # students of other sizes have others, and are here one model
        for name, value in changes.items():
            setattr(config, name, value)
        return config

    return load


def ran(config, workdir, report="report"):
    """The report of an experiment that ran: {"reused"} and {"done"} nodes, report.json, its page."""
    status = run.main(config, str(workdir))
    found = {how: {name for name, other in status.items() if other == how} for how in ("done", "reused")}
    place = workdir / report
    return found, read_json(place / "report.json"), (place / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("picked", "student", "reasoner", "non_reasoner", "ceiling"),
    [
        ("qwen25.py:7b-from-1.5b", "qwen2", "reasoner", "qwen2", "train"),
        ("llama31.py:8b-from-7b-vs-14b", "llama", "reasoner", "large", "published"),
        ("families.py:7b-from-llama-8b", "qwen2", "llama_reasoner", "llama", "published"),
    ],
)
def test_a_pair_runs_to_its_report(picked, student, reasoner, non_reasoner, ceiling, models, files, shrunk, tmp_path):
    config = shrunk(picked, student, reasoner=models[reasoner], non_reasoner=models[non_reasoner], ceiling=ceiling)
    config.benchmarks = (files.problems, *config.benchmarks)
    status, report, _ = ran(config, tmp_path / "run")
    assert not status["reused"]
    assert list(report["arms"]) == ["base", "teacher", "w2sr", "w2sr_p", "w2sr_n", "non_reasoner_taught", "grpo"]
    assert set(report["arms"]["base"]) == {"problems", "other", "average"}
    assert ("grpo" in report["ledger"]["routes"]) == (ceiling == "train")
    assert report["decoding"]["problems"]["protocol"] == config.protocol
    assert set(report["scoring"]["w2sr"]) == {"problems", "other"}
    counts = read_json(tmp_path / "run" / "filter" / "counts.json")
    assert counts["graded"]["correct"] > 0
    assert counts["graded"]["incorrect"] > 0
    assert counts["contamination"]["traces"] == 16  # trained on what it is tested on: found
    result = read_json(tmp_path / "run" / "eval" / "base" / "0" / "result.json")
    assert 0 < result["token_limit"] < CONTEXT < result["decoding"]["max_tokens"]


@pytest.mark.slow
def test_several_teachers_are_drawn_by_size_and_their_traces_are_made_once_for_an_ensemble(models, shrunk, tmp_path):
    teachers = (f"reasoner_1.5b={models['reasoner']}", f"non_reasoner_32b={models['large']}")
    config = shrunk("scale.py:every_size", "qwen2", teachers=teachers)
    status, report, page = ran(config, tmp_path / "run", "report_scale")
    arms = ["reasoner_1.5b", "non_reasoner_32b"]
    assert list(report["arms"]) == ["base", *(f"teacher_{arm}" for arm in arms), *arms, "grpo"]
    assert "a small Reasoner (1.5B) teaches better than a large Non-Reasoner (32B)" in report["claims"]
    small, large = (report["teachers"][arm]["parameters"] for arm in arms)
    assert small < large
    assert "Accuracy on other against the size of the teacher." in page

    config = shrunk("ensembles.py:majority", "qwen2", teachers=teachers)
    made, report, _ = ran(config, tmp_path / "run", "report_ensemble_majority")
    assert made["reused"] == status["done"] - {"report_scale"}
    assert list(report["ledger"]["routes"]) == [*arms, "ensemble_majority"]


@pytest.mark.slow
def test_the_open_questions_run_to_their_reports_in_one_workdir(models, files, shrunk, tmp_path):
    rows = [{"id": f"{i}", "problem": f"{i}+3=?", "answer": "3", "solution": "It is 3."} for i in range(4)]
    (tmp_path / "solved.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {  # report -> its file, what is changed, its students
        "report_answer": ("errors.py:answer", {"rates": (1.0,)}, ["w2sr_p", "answer_100"]),
        "report_answer_only_human_self": (
            "supervision.py:every_kind",
            {"kinds": ("answer_only", "human", "self"), "size": 2, "solutions": str(tmp_path / "solved.jsonl")},
            ["matched", "answer_only", "human", "self_correct", "self_all"],
        ),
        "report_surprisal": (
            "filtering.py:surprisal",
            {"samples": 2, "size": 3},
            ["random", "gold", "surprising", "unsurprising"],
        ),
    }
    shared = set()
    for name, (picked, changes, students) in asked.items():
        config = shrunk(picked, "reasoner", reasoner=models["reasoner"], **changes)
        status, report, _ = ran(config, tmp_path / "run", name)
        assert list(report["ledger"]["routes"]) == students
        assert list(report["arms"]) == ["base", "teacher", *students, "grpo"]
        assert shared <= status["reused"]
        shared |= {"eval/base/0", "eval/teacher/0", "eval/grpo_published/0"}
    sizes = {arm: len(read_jsonl(tmp_path / "run" / f"{arm}_traces" / "traces.jsonl", GradedTrace)) for arm in students}
    assert set(sizes.values()) == {3}
    touched = read_json(tmp_path / "run" / "answer_100_traces" / "counts.json")
    assert touched["touched"] == touched["traces"] > 0


@pytest.mark.slow
def test_a_domain_runs_to_its_report_with_a_ceiling_of_its_own(models, shrunk, tmp_path):
    config = shrunk("domains.py:letter_counting", "qwen2", reasoner=models["reasoner"], non_reasoner=models["qwen2"])
    config.problems, config.benchmarks = "gym:letter_counting:16:1", ("gym:letter_counting:4:2",)
    _, report, _ = ran(config, tmp_path / "run")
    assert list(report["ledger"]["routes"]) == ["w2sr", "w2sr_p", "w2sr_n", "non_reasoner_taught", "grpo"]
    graded = read_json(tmp_path / "run" / "filter" / "counts.json")["graded"]
    assert 0 < graded["correct"] < graded["all"] == 16
