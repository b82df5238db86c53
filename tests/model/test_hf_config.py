"""A model's config.json: read, written, and refused by name where it asks for what is not implemented."""

import json

import pytest

from tests.model.test_hf import LLAMA, QWEN, error_of, make_model
from w2sr_jax.model import hf
from w2sr_jax.model.config import CheckpointError, ModelConfig


@pytest.mark.torch
@pytest.mark.parametrize("config", [QWEN, LLAMA], ids=["qwen2", "llama3"])
def test_the_written_config_is_read_back_by_us_and_by_transformers(config, tmp_path):
    import transformers

    hf.save(make_model(config), tmp_path / "m")
    assert hf.load_config(tmp_path / "m") == config
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "m")
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    assert theirs.rope_parameters["rope_type"] == ("llama3" if config.rope_scaling else "default")
    assert theirs.head_dim == 4
    assert theirs.tie_word_embeddings == config.tie_embeddings
    assert str(theirs.dtype).removeprefix("torch.") == "bfloat16"
    theirs.save_pretrained(tmp_path / "again")
    assert hf.load_config(tmp_path / "again") == config
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "m")
    assert generation.eos_token_id in (7, [7, 9])


def test_both_spellings_of_rope_in_config_json_mean_the_same():
    raw = LLAMA.to_hf()
    old = {k: v for k, v in raw.items() if k not in ("rope_parameters", "dtype")}
    new = {k: v for k, v in raw.items() if k not in ("rope_scaling", "rope_theta", "torch_dtype")}
    legacy = old | {"rope_scaling": {("type" if k == "rope_type" else k): v for k, v in old["rope_scaling"].items()}}
    assert ModelConfig.from_hf(old) == ModelConfig.from_hf(new) == ModelConfig.from_hf(legacy) == LLAMA


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "model_type"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architectures"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1}, "sliding"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 4.0}}, "low_freq_factor"),
        ({"rope_parameters": 3}, "rope_parameters"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "num_kv_heads"),
        ({"num_key_value_heads": 0}, "num_kv_heads"),
        ({"head_dim": 5}, "head_dim"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
    ],
)
def test_a_config_that_is_malformed_or_not_implemented_is_refused_by_name(tmp_path, change, named):
    hf.save(make_model(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert named in error_of(tmp_path)


@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_a_llama_with_biases_is_refused(key):
    with pytest.raises(CheckpointError, match=key):
        ModelConfig.from_hf(LLAMA.to_hf() | {key: True})


def test_a_window_that_no_layer_uses_is_accepted():
    raw = QWEN.to_hf() | {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 2}
    assert ModelConfig.from_hf(raw) == QWEN
