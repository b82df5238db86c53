"""A model directory that is not what it should be ends in one line that names what is wrong, whatever the stage."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from w2sr_jax.core.runtime import EXIT_FAILED

READS_A_MODEL = ("convert", "distill", "sft", "grpo", "evaluate")


def missing(tensors):
    del tensors["model.norm.weight"]


def extra(tensors):
    tensors["model.strange.weight"] = np.zeros(3, np.float32)


def misshaped(tensors):
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((4, 4), np.float32)


@pytest.mark.parametrize("stage", READS_A_MODEL)
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (missing, "missing model.norm.weight"),
        (extra, "model.strange.weight"),
        (misshaped, "model.layers.0.mlp.up_proj.weight has shape (4, 4), config.json says (32, 16)"),
    ],
)
def test_a_model_with_wrong_tensors_is_refused_with_their_names(stage, damage, named, fails, inputs, files, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(files.model, model)
    tensors = load_file(model / "model.safetensors")
    damage(tensors)
    save_file(tensors, model / "model.safetensors")
    code, line = fails(stage, inputs.argv(stage, model=str(model)))
    assert code == EXIT_FAILED
    assert named in line
    assert str(model) in line


@pytest.mark.parametrize("stage", READS_A_MODEL)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", None),
        ("config.json", '{"architectures": ["'),
        ("model.safetensors", None),
        ("model.safetensors", "half a fi"),
    ],
)
def test_a_model_with_a_missing_or_broken_file_is_refused_with_its_name(
    stage, name, content, fails, inputs, files, tmp_path
):
    model = tmp_path / "model"
    shutil.copytree(files.model, model)
    (model / name).unlink() if content is None else (model / name).write_text(content)
    code, line = fails(stage, inputs.argv(stage, model=str(model)))
    assert code == EXIT_FAILED
    assert str(model) in line
    assert "safetensors" in line if name.startswith("model") else name in line


@pytest.mark.parametrize("stage", [stage for stage in READS_A_MODEL if stage != "convert"])
@pytest.mark.parametrize("content", [None, '{"version": "1.0", "model"'])
def test_a_missing_or_broken_tokenizer_is_named(stage, content, fails, inputs, files, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(files.model, model)
    path = model / "tokenizer.json"
    path.unlink() if content is None else path.write_text(content)
    code, line = fails(stage, inputs.argv(stage, model=str(model)))
    assert code == EXIT_FAILED
    assert str(model) in line
    assert "tokenizer" in line


def test_a_prompt_that_exceeds_the_models_context_is_explained(fails, inputs, tmp_path):
    for stage in ("distill", "grpo", "evaluate"):
        code, line = fails(stage, inputs.argv(stage, sampling__max_tokens="80"))
        assert code == EXIT_FAILED
        assert "max_tokens 80 exceed the model's context of 64" in line
        shutil.rmtree(tmp_path / "w")
