"""Model directories: exact round trips, shards, placement on a mesh, and one line for everything that can be wrong."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from w2sr_jax.core import mesh as mesh_module
from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig, RopeScaling
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.tensors import write_tensors

SIZES = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 4,
}
QWEN = ModelConfig(**SIZES, tie_embeddings=True, eos_token_ids=(7,), rope_theta=1e6)
LLAMA = ModelConfig(
    **SIZES,
    family="llama",
    attention_bias=False,
    eos_token_ids=(7, 9),
    bos_token_id=1,
    pad_token_id=0,
    rope_theta=5e5,
    rope_scaling=RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    ),
)


def make_model(config: ModelConfig = QWEN, **options) -> Decoder:
    return Decoder(config, rngs=nnx.Rngs(0), **options)


@pytest.fixture
def directory(tmp_path) -> Path:
    hf.save(make_model(), tmp_path / "model", dtype=jnp.float32)
    return tmp_path / "model"


def rewrite(directory: Path, change) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def error_of(directory, mesh=None) -> str:
    with pytest.raises(W2SRError) as caught:
        hf.load(directory, mesh)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same_parameters(a: Decoder, b: Decoder) -> None:
    for x, y in zip(jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("config", [QWEN, LLAMA], ids=["qwen2-tied", "llama-untied"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_export_and_import_are_bit_exact(config, dtype, tmp_path):
    model = make_model(config, param_dtype=dtype)
    hf.save(model, tmp_path / "a", dtype=dtype)
    again = hf.load(tmp_path / "a", dtype=dtype)
    assert again.config == config
    assert_same_parameters(again, model)
    hf.save(again, tmp_path / "b", dtype=dtype, max_shard_gb=3e-6)
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 2
    assert_same_parameters(hf.load(tmp_path / "b", dtype=dtype), model)


def test_a_bfloat16_export_of_float32_parameters_is_their_rounding(tmp_path):
    model = make_model()
    hf.save(model, tmp_path / "a")
    loaded = hf.load(tmp_path / "a")
    assert loaded.embed[...].dtype == jnp.float32
    np.testing.assert_array_equal(loaded.embed[...], model.embed[...].astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize("config", [QWEN, LLAMA], ids=["qwen2-tied", "llama-untied"])
def test_a_model_on_a_mesh_has_the_shardings_of_the_rules_and_the_same_values_and_outputs(config, tmp_path):
    model = make_model(config)
    hf.save(model, tmp_path / "a", dtype=jnp.float32)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    placed = hf.load(tmp_path / "a", mesh)
    assert_same_parameters(placed, model)
    P = jax.sharding.PartitionSpec
    assert placed.embed[...].sharding.spec == P("tensor", "fsdp")
    assert placed.layers["q"][...].sharding.spec == P(None, "fsdp", "tensor")
    assert placed.layers["o"][...].sharding.spec == P(None, "tensor", "fsdp")
    assert placed.layers["k"][...].addressable_shards[0].data.shape == (2, 8, 4)
    assert placed.norm[...].sharding.is_fully_replicated
    tokens = np.random.default_rng(0).integers(0, 48, (4, 6))
    on_mesh = jax.device_put(tokens, jax.sharding.NamedSharding(mesh, P(("data", "fsdp"))))
    forward = nnx.jit(lambda model, tokens: model.logits(model(tokens)))
    np.testing.assert_allclose(forward(placed, on_mesh), forward(model, tokens), atol=1e-5)
    hf.save(placed, tmp_path / "b", dtype=jnp.float32)
    assert hf.weights_hash(tmp_path / "b") == hf.weights_hash(tmp_path / "a")


def test_kv_heads_fewer_than_the_tensor_axis_are_whole_on_every_device_of_it(tmp_path):
    model = make_model()
    hf.save(model, tmp_path / "a", dtype=jnp.float32)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    placed = hf.load(tmp_path / "a", mesh)
    assert placed.layers["q"][...].addressable_shards[0].data.shape == (2, 8, 4)
    assert placed.layers["k"][...].addressable_shards[0].data.shape == (2, 8, 8)
    assert placed.layers["v_bias"][...].sharding.is_fully_replicated
    tokens = np.random.default_rng(0).integers(0, 48, (4, 6))
    on_mesh = jax.device_put(tokens, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp"))))
    forward = nnx.jit(lambda model, tokens, mesh: model.logits(model(tokens, mesh=mesh)), static_argnames="mesh")
    np.testing.assert_allclose(forward(placed, on_mesh, mesh), forward(model, tokens, None), atol=1e-5)
    hf.save(placed, tmp_path / "b", dtype=jnp.float32)
    assert hf.weights_hash(tmp_path / "b") == hf.weights_hash(tmp_path / "a")


def test_large_parameters_that_every_device_holds_are_one_warning_with_their_bytes(directory, monkeypatch):
    lines = []
    monkeypatch.setattr(mesh_module, "LARGE", 48 * 16 * 4)
    monkeypatch.setattr(mesh_module.logging, "warning", lambda text, *values: lines.append(text % values))
    hf.load(directory, make_mesh(MeshConfig(data=1, fsdp=8)))
    assert lines == []
    hf.load(directory, make_mesh(MeshConfig(data=8, fsdp=1)))
    (line,) = lines
    assert line.startswith("every one of 8 devices holds 12288 bytes of parameters whole: embed 3072, ")
    hf.load(directory)
    assert len(lines) == 1


def test_a_mesh_that_does_not_divide_the_heads_or_a_parameter_is_one_line_naming_them(directory):
    tensor4 = make_mesh(MeshConfig(data=1, tensor=4))
    hf.save(make_model(dataclasses.replace(QWEN, num_heads=6, num_kv_heads=2)), directory)
    assert "q: dimension 'heads' of shape (2, 16, 24) (6 heads) is not divisible by 4 (tensor=4)" in error_of(
        directory, tensor4
    )
    hf.save(make_model(dataclasses.replace(QWEN, num_heads=12, num_kv_heads=6)), directory)
    assert "k: dimension 'kv_heads' of shape (2, 16, 24) (6 heads) is not divisible by 4" in error_of(
        directory, tensor4
    )
    hf.save(make_model(dataclasses.replace(QWEN, vocab_size=47)), directory)
    assert "embed: dimension 'vocab' of shape (47, 16)" in error_of(directory, make_mesh(MeshConfig(tensor=2)))


def test_all_missing_extra_and_misshaped_tensors_are_named_in_one_line(directory):
    def change(tensors):
        del tensors["model.layers.0.self_attn.q_proj.bias"], tensors["model.norm.weight"]
        tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((24, 17), np.float32)
        tensors["model.layers.1.mlp.down_proj.weight"] = np.zeros((16, 24), np.int32)
        tensors["model.layers.2.mlp.up_proj.weight"] = np.zeros((24, 16), np.float32)

    rewrite(directory, change)
    message = error_of(directory)
    for part in (
        "missing model.layers.0.self_attn.q_proj.bias (16,)",
        "missing model.norm.weight (16,)",
        "model.layers.1.mlp.up_proj.weight has shape (24, 17), config.json says (24, 16)",
        "model.layers.1.mlp.down_proj.weight has dtype I32",
        "extra model.layers.2.mlp.up_proj.weight (24, 16)",
    ):
        assert part in message


def test_inverse_frequencies_and_the_copy_of_a_tied_head_are_ignored(directory):
    def change(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(2, np.float32)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()

    rewrite(directory, change)
    assert_same_parameters(hf.load(directory), make_model())


def test_a_safetensors_file_cut_short_is_one_line_naming_it(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors: not a whole safetensors file" in error_of(directory)
    path.write_bytes(b"")
    assert "model.safetensors: not a whole safetensors file" in error_of(directory)


def test_a_directory_without_config_or_weights_or_with_pickles_only_is_one_line(directory, tmp_path):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert "pickles" in error_of(directory)
    (directory / "config.json").write_text("{")
    assert "not JSON" in error_of(directory)
    (directory / "config.json").write_text("[]")
    assert "expected a JSON object" in error_of(directory)
    (directory / "config.json").unlink()
    assert "no such file" in error_of(directory)
    assert "no such directory" in error_of(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "a file" in error_of(tmp_path / "file")


def test_a_hub_id_that_cannot_be_had_is_one_line():
    assert "hub" in error_of("nobody/no-such-model")


def test_a_bad_index_is_one_line(directory):
    index = directory / "model.safetensors.index.json"
    for value, named in [
        ("{", "not JSON"),
        ("{}", "weight_map"),
        ('{"weight_map": {"a": "../outside.safetensors"}}', "outside"),
        ('{"weight_map": {"a": 3}}', "3"),
        ('{"weight_map": {"a": "model-00002.safetensors"}}', "model-00002.safetensors"),
    ]:
        index.write_text(value)
        assert named in error_of(directory)


def test_a_tensor_in_two_files_is_refused(directory):
    shutil.copy(directory / "model.safetensors", directory / "other.safetensors")
    weight_map = {"a": "model.safetensors", "b": "other.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "also in another file" in error_of(directory)


def test_a_training_workdir_stands_for_its_export_and_the_tokenizer_is_copied(directory, tmp_path):
    (directory / "tokenizer.json").write_text('{"a": 1}')
    (directory / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"stage": "sft"}')
    hf.save(make_model(), tmp_path / "run" / "export", dtype=jnp.float32, tokenizer_from=directory)
    assert hf.resolve(tmp_path / "run") == tmp_path / "run" / "export"
    assert_same_parameters(hf.load(str(tmp_path / "run")), make_model())
    assert (tmp_path / "run" / "export" / "tokenizer.json").read_text() == '{"a": 1}'
    assert json.loads((tmp_path / "run" / "export" / "generation_config.json").read_text()) == {"eos_token_id": [1, 2]}


def test_an_export_replaces_the_old_one_whole_and_leaves_nothing_beside_it(directory, monkeypatch):
    (directory / "leftover.txt").write_text("old")
    hf.save(make_model(LLAMA), directory)
    assert hf.load_config(directory) == LLAMA
    assert not (directory / "leftover.txt").exists()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(W2SRError, match="No space left"):
        hf.save(make_model(QWEN), directory)
    assert hf.load_config(directory) == LLAMA
    monkeypatch.undo()
    hf.save(make_model(QWEN), directory)
    assert os.listdir(directory.parent) == [directory.name]


def test_the_weights_hash_follows_the_weights_alone(directory, tmp_path):
    before = hf.weights_hash(directory)
    (directory / "tokenizer.json").write_text("{}")
    assert hf.weights_hash(directory) == before
    rewrite(directory, lambda tensors: tensors.update({"model.norm.weight": np.full(16, 2, np.float32)}))
    assert hf.weights_hash(directory) != before


def test_files_are_what_the_safetensors_library_reads_and_writes(tmp_path):
    """The header is written here, so that one tensor at a time is in memory."""
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((5,), np.float32)}
    shapes = {name: array.shape for name, array in arrays.items()}
    tensors = ((name, lambda array=array: array) for name, array in arrays.items())
    write_tensors(tmp_path, tensors, shapes, np.dtype(np.float32), 10**9)
    found = load_file(tmp_path / "model.safetensors")
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in arrays.items()}
    save_file(arrays, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "theirs.safetensors").stat().st_size == (tmp_path / "model.safetensors").stat().st_size
