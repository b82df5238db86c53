"""The key table between our parameters and Hugging Face's tensors, read in both directions."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from w2sr_jax.model.config import CheckpointError, ModelConfig
from w2sr_jax.model.params import param_specs
from w2sr_jax.model.tensors import FLOATS, TensorFiles

# Our parameter -> (Hugging Face tensor, transposed there). `{}` is the layer of a stacked parameter.
KEYS: dict[str, tuple[str, bool]] = {
    "embed": ("model.embed_tokens.weight", False),
    "norm": ("model.norm.weight", False),
    "lm_head": ("lm_head.weight", True),
    "input_norm": ("model.layers.{}.input_layernorm.weight", False),
    "post_norm": ("model.layers.{}.post_attention_layernorm.weight", False),
    "q": ("model.layers.{}.self_attn.q_proj.weight", True),
    "k": ("model.layers.{}.self_attn.k_proj.weight", True),
    "v": ("model.layers.{}.self_attn.v_proj.weight", True),
    "q_bias": ("model.layers.{}.self_attn.q_proj.bias", False),
    "k_bias": ("model.layers.{}.self_attn.k_proj.bias", False),
    "v_bias": ("model.layers.{}.self_attn.v_proj.bias", False),
    "o": ("model.layers.{}.self_attn.o_proj.weight", True),
    "gate": ("model.layers.{}.mlp.gate_proj.weight", True),
    "up": ("model.layers.{}.mlp.up_proj.weight", True),
    "down": ("model.layers.{}.mlp.down_proj.weight", True),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a Hugging Face checkpoint and where it lives in ours."""

    name: str
    shape: tuple[int, ...]
    param: str
    layer: int | None
    transposed: bool


def tensor_table(config: ModelConfig) -> list[Tensor]:
    """Every tensor that a checkpoint of this config holds, outer ones first, then layer by layer."""

    def entry(param: str, shape: tuple[int, ...], layer: int | None) -> Tensor:
        pattern, transposed = KEYS[param]
        return Tensor(pattern.format(layer), shape[::-1] if transposed else shape, param, layer, transposed)

    outer, layers = param_specs(config)
    return [entry(p, s.shape, None) for p, s in outer.items()] + [
        entry(p, s.shape[1:], layer) for layer in range(config.num_layers) for p, s in layers.items()
    ]


def open_checked(directory: Path, config: ModelConfig) -> TensorFiles:
    """Opens the weights and holds names and shapes against the table; nothing is read yet."""
    files, table = TensorFiles(directory), {t.name: t for t in tensor_table(config)}
    harmless = re.compile(r".*rotary_emb\.inv_freq" + (r"|lm_head\.weight" if config.tie_embeddings else ""))
    faults = [f"missing {name} {tensor.shape}" for name, tensor in table.items() if name not in files.shapes]
    for name, shape in files.shapes.items():
        if name not in table:
            faults += [] if harmless.fullmatch(name) else [f"extra {name} {shape}"]
        elif shape != table[name].shape:
            faults.append(f"{name} has shape {shape}, config.json says {table[name].shape}")
        elif files.dtypes[name] not in FLOATS:
            faults.append(f"{name} has dtype {files.dtypes[name]}, expected one of {', '.join(sorted(FLOATS))}")
    if faults:
        raise CheckpointError(f"{directory}: {len(faults)} tensors do not fit config.json: {'; '.join(faults)}")
    return files
