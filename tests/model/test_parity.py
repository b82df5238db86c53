"""The decoder against transformers, float32, random weights: whole models and one component after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.model import hf
from w2sr_jax.model.attention import attention
from w2sr_jax.model.decoder import block, mlp, qkv, rms_norm
from w2sr_jax.model.rope import rope_tables

pytestmark = pytest.mark.torch

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,  # so small that the test's positions reach the stretched range
}
QWEN = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
LLAMA = {"num_attention_heads": 4, "num_key_value_heads": 2}
MODELS = {
    "qwen2-tied-2-groups": ("qwen2", QWEN | {"tie_word_embeddings": True}),
    "qwen2-untied-7-groups": ("qwen2", QWEN | {"num_attention_heads": 14, "hidden_size": 112}),
    "llama-untied": ("llama", LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "llama3-tied-wide-heads": (
        "llama",
        LLAMA | {"tie_word_embeddings": True, "head_dim": 16, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
    ),
}
SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3, "pad_token_id": 0}


def make_reference(name: str, directory):
    """A random transformers model, its biases and norms too, saved to `directory`."""
    import torch
    import transformers

    family, options = MODELS[name]
    torch.manual_seed(0)
    kind = {"qwen2": transformers.Qwen2Config, "llama": transformers.LlamaConfig}[family]
    config = kind(**SIZES | options, max_position_embeddings=128, initializer_range=0.2)
    reference = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for key, tensor in reference.named_parameters():
            if key.endswith("bias") or "norm" in key:
                tensor.add_(0.3 * torch.randn_like(tensor))
    reference.save_pretrained(directory)
    return reference


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    reference = make_reference(request.param, directory)
    return reference, hf.load(directory)


def run_reference(reference, tokens, **options):
    import torch

    with torch.no_grad():
        options = {key: torch.tensor(np.asarray(value)) for key, value in options.items()}
        return reference(torch.tensor(tokens), **options).logits.numpy()


def random_tokens(batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(1).integers(1, SIZES["vocab_size"], (batch, length))


def test_logits_equal_those_of_transformers(pair):
    reference, model = pair
    tokens = random_tokens(3, 40)
    got = jax.jit(lambda t: model.logits(model(t)))(tokens)
    np.testing.assert_allclose(got, run_reference(reference, tokens), atol=1e-4)


def test_logits_of_a_left_padded_batch_equal_those_of_transformers(pair):
    reference, model = pair
    tokens = random_tokens(3, 20)
    mask = np.arange(20) >= np.array([[0], [7], [15]])
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    expected = run_reference(
        reference, np.where(mask, tokens, 0), attention_mask=mask.astype(int), position_ids=positions
    )
    got = model.logits(model(jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(mask.astype(int))))
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-4)


def test_logits_of_a_packed_batch_equal_those_of_its_sequences_alone_in_transformers(pair):
    reference, model = pair
    tokens, lengths = random_tokens(1, 33), [5, 17, 11]
    segments = np.repeat([1, 2, 3], lengths)[None]
    positions = np.concatenate([np.arange(n) for n in lengths])[None]
    got = model.logits(model(jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(segments)))
    start = 0
    for length in lengths:
        alone = run_reference(reference, tokens[:, start : start + length])
        np.testing.assert_allclose(got[:, start : start + length], alone, atol=1e-4)
        start += length


def test_every_component_equals_its_counterpart_in_transformers(pair):
    import torch

    reference, model = pair
    config, layer = model.config, 1
    inner, tokens = reference.model, random_tokens(2, 12)
    theirs = inner.layers[layer]
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _, inputs, output, key=key: seen.__setitem__(key, (inputs, output)))
        for key, module in {
            "embed": inner.embed_tokens,
            "input_norm": theirs.input_layernorm,
            "q": theirs.self_attn.q_proj,
            "k": theirs.self_attn.k_proj,
            "v": theirs.self_attn.v_proj,
            "o": theirs.self_attn.o_proj,
            "post_norm": theirs.post_attention_layernorm,
            "mlp": theirs.mlp,
            "block": theirs,
            "norm": inner.norm,
        }.items()
    ]
    logits = run_reference(reference, tokens)
    for hook in hooks:
        hook.remove()

    def side(key: str, which: int) -> np.ndarray:  # 0: what went in, 1: what came out
        value = seen[key][which]
        return (value[0] if isinstance(value, tuple) else value).detach().numpy()

    def same(got, expected):
        np.testing.assert_allclose(np.asarray(got).reshape(expected.shape), expected, atol=1e-4)

    w = {name: param[...][layer] for name, param in model.layers.items()}
    positions = jnp.broadcast_to(jnp.arange(12), tokens.shape)
    tables = rope_tables(config, positions)
    same(model.embed[...][tokens], side("embed", 1))
    same(rms_norm(side("input_norm", 0), w["input_norm"], config.rms_norm_eps), side("input_norm", 1))
    x = jnp.asarray(side("input_norm", 1))
    unrotated = (jnp.ones_like(tables[0]), jnp.zeros_like(tables[1]))
    for name, got in zip("qkv", qkv(config, w, x, unrotated)):
        same(got, side(name, 1))
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    def heads(key: str) -> torch.Tensor:
        return torch.tensor(side(key, 1)).unflatten(-1, (-1, config.head_dim)).transpose(1, 2)

    cos_sin = inner.rotary_emb(heads("v"), torch.tensor(np.asarray(positions)))
    rotated = apply_rotary_pos_emb(heads("q"), heads("k"), *cos_sin)
    q, k, v = qkv(config, w, x, tables)
    same(q, rotated[0].transpose(1, 2).numpy())
    same(k, rotated[1].transpose(1, 2).numpy())
    same(attention(q, k, v), side("o", 0))
    same(rms_norm(side("post_norm", 0), w["post_norm"], config.rms_norm_eps), side("post_norm", 1))
    same(mlp(w, jnp.asarray(side("mlp", 0))), side("mlp", 1))
    same(block(config, w, jnp.asarray(side("block", 0)), tables, attention), side("block", 1))
    same(rms_norm(side("norm", 0), model.norm[...], config.rms_norm_eps), side("norm", 1))
    same(model.logits(jnp.asarray(side("norm", 1))), logits)


def test_an_export_loads_in_transformers_and_gives_the_same_logits(pair, tmp_path):
    import torch
    import transformers

    reference, model = pair
    hf.save(model, tmp_path / "export", dtype=jnp.float32)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "export", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = random_tokens(2, 40)
    np.testing.assert_array_equal(run_reference(again, tokens), run_reference(reference, tokens))


def test_a_sharded_transformers_checkpoint_loads(pair, tmp_path):
    reference, model = pair
    reference.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    tokens = jnp.asarray(random_tokens(1, 8))
    np.testing.assert_array_equal(hf.load(tmp_path)(tokens), model(tokens))
