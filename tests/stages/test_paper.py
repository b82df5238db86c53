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
from w2sr_jax.core.records import Problem
from w2sr_jax.model import hf
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.stages import run, sft

ROOT = Path(__file__).parents[2] / "configs" / "paper"
CONTEXT = 400  # the templates take about 250 of the tiny tokenizer's tokens, which are characters


def widened(source, target):
    """A copy of a model with room for a prompt in full."""
    shutil.copytree(source, target)
    raw = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(raw | {"max_position_embeddings": CONTEXT}))
    return target


@pytest.fixture(scope="module")
def models(files, tmp_path_factory):
    """{"qwen2": random student, "llama": random student, "reasoner": one that answers 1 to 4 at random}."""
    root = tmp_path_factory.mktemp("paper")
    qwen = widened(Path(files.model), root / "qwen2")
    size = dataclasses.replace(hf.load_config(qwen), family="llama", attention_bias=False)
    hf.save(Decoder(size, rngs=nnx.Rngs(1)), root / "llama", "float32", tokenizer_from=qwen)
    config = files.sft(model=str(qwen), steps=40, checkpoint=CheckpointConfig(every_steps=0, keep_last=1))
    config.data = dataclasses.replace(config.data, template="qwen-boxed", max_length=CONTEXT)
    sft.main(config, str(root / "reasoner"))
    return {"qwen2": str(qwen), "llama": str(root / "llama"), "reasoner": str(root / "reasoner")}


def shrunk(picked, student, models, files, one_device, tmp_path):
    """A paper experiment with nothing but its sizes, models and data replaced."""
    config = load_config_file(f"{ROOT / picked}")
    write_jsonl(tmp_path / "other.jsonl", read_jsonl(files.problems, Problem)[:4])
    config.student, config.reasoner, config.non_reasoner = models[student], models["reasoner"], models["qwen2"]
    config.problems, config.benchmarks = files.problems, (files.problems, str(tmp_path / "other.jsonl"))
    config.trace_tokens, config.epochs, config.max_length, config.batch_size = 8, 1.0, CONTEXT, 4
    config.grpo_steps, config.grpo_prompts, config.grpo_minibatch, config.grpo_samples = 1, 4, 2, 4
    config.grpo_tokens, config.sft_grad_accum, config.grpo_grad_accum = 6, 2, 2
    config.dtype, config.decode_batch, config.mesh, config.bootstrap = "float32", 32, one_device, 200
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("picked", "student", "ceiling"),
    [
        ("qwen25.py:7b-from-1.5b", "qwen2", "train"),
        ("qwen25_math.py:math-7b-from-0.5b", "qwen2", "published"),
        ("llama31.py:8b-from-7b", "llama", "train"),
    ],
)
def test_a_paper_experiment_runs_to_its_report(picked, student, ceiling, models, files, one_device, tmp_path):
    config = shrunk(picked, student, models, files, one_device, tmp_path)
    config.ceiling = ceiling
    config.published_ceiling = models[student]
    assert set(run.main(config, str(tmp_path / "run")).values()) == {"done"}

    report = read_json(tmp_path / "run" / "report" / "report.json")
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
