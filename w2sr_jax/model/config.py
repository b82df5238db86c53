"""The shape of a decoder, read from and written to a Hugging Face config.json.

Both spellings are read: `rope_theta` + `rope_scaling` + `torch_dtype` (transformers 4) and `rope_parameters` + `dtype`
(transformers 5); both are written, so that either transformers and any vLLM find what they look for. A checkpoint
that needs something the decoder does not compute is refused here, before any tensor is read.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Self

from w2sr_jax.core.errors import W2SRError

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}


class CheckpointError(W2SRError):
    """A model directory does not hold what it should; the message names the file, the keys or the tensors."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3's stretching of the low rotary frequencies (the `llama3` rope type of config.json)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and constants of a Qwen2.5 or Llama decoder. Hashable, so that it can be static under jit."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    family: Literal["qwen2", "llama"] = "qwen2"
    attention_bias: bool = True  # of q, k and v; o has none
    tie_embeddings: bool = False
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32_768
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
        )
        for name in sizes:
            if (size := getattr(self, name)) < 1:
                raise CheckpointError(f"model config: {name} must be positive, got {size}")
        if self.num_heads % self.num_kv_heads:
            raise CheckpointError(
                f"model config: num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise CheckpointError(f"model config: head_dim must be even for rotary embeddings, got {self.head_dim}")

    @classmethod
    def from_hf(cls, raw: dict[str, Any], where: str = "config.json") -> Self:
        """Builds the config from a decoded config.json.

        Raises:
            CheckpointError: naming `where`, the key and the value that is missing, malformed or not implemented.
        """
        read = _Reader(raw, where)
        family = read.choice("model_type", tuple(ARCHITECTURES))
        _refuse_unimplemented(read, family)
        theta, scaling = _rope(read)
        heads, hidden = read.integer("num_attention_heads"), read.integer("hidden_size")
        return cls(
            family=family,  # type: ignore[arg-type]
            vocab_size=read.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=read.integer("intermediate_size"),
            num_layers=read.integer("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=read.integer("num_key_value_heads", heads),
            head_dim=read.integer("head_dim", hidden // max(heads, 1)),
            attention_bias=family == "qwen2",
            tie_embeddings=read.boolean("tie_word_embeddings", False),
            rope_theta=theta,
            rope_scaling=scaling,
            rms_norm_eps=read.number("rms_norm_eps", 1e-6),
            max_position_embeddings=read.integer("max_position_embeddings", 32_768 if family == "qwen2" else 2048),
            eos_token_ids=read.token_ids("eos_token_id"),
            bos_token_id=next(iter(read.token_ids("bos_token_id")), None),
            pad_token_id=next(iter(read.token_ids("pad_token_id")), None),
        )

    def to_hf(self, dtype: str = "bfloat16") -> dict[str, Any]:
        """The config.json that transformers 4 and 5 and vLLM read back as this config."""
        scaling = {"rope_type": "llama3"} | dataclasses.asdict(self.rope_scaling) if self.rope_scaling else None
        eos = list(self.eos_token_ids)
        config = {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "tie_word_embeddings": self.tie_embeddings,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "rope_parameters": (scaling or {"rope_type": "default"}) | {"rope_theta": self.rope_theta},
            "rms_norm_eps": self.rms_norm_eps,
            "max_position_embeddings": self.max_position_embeddings,
            "initializer_range": 0.02,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
            "pad_token_id": self.pad_token_id,
            "use_cache": True,
            "dtype": dtype,
            "torch_dtype": dtype,
        }
        if self.family == "qwen2":
            return config | {"use_sliding_window": False, "sliding_window": None}
        return config | {"attention_bias": False, "mlp_bias": False}


class _Reader:
    """Typed access to a decoded config.json; every complaint names the file and the key."""

    def __init__(self, raw: Any, where: str):
        self.where = where
        if not isinstance(raw, dict):
            raise CheckpointError(f"{where}: expected an object, got {type(raw).__name__}")
        self.raw: dict[str, Any] = raw

    def fail(self, key: str, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {key}: {reason}")

    def number(self, key: str, default: float | None = None) -> float:
        value = self.raw.get(key)
        value = default if value is None else value
        if value is None:
            raise self.fail(key, "missing")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"expected a number, got {value!r}")
        return float(value)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value):
            raise self.fail(key, f"expected an integer, got {value!r}")
        return int(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, f"expected true or false, got {value!r}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.raw.get(key)
        if value not in choices:
            raise self.fail(key, f"{value!r} is not implemented, only {', '.join(choices)}")
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        value = self.raw.get(key)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise self.fail(key, f"expected token ids, got {value!r}")
        return tuple(ids)


# Keys that change the computation, with the value under which they change nothing.
_INERT: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,  # of Llama: it would put a bias on o as well
    "mlp_bias": False,
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}


def _refuse_unimplemented(read: _Reader, family: str) -> None:
    raw = read.raw
    architectures = raw.get("architectures")
    if architectures and ARCHITECTURES[family] not in architectures:
        raise read.fail("architectures", f"{architectures!r} is not implemented, only {ARCHITECTURES[family]}")
    for key, inert in _INERT.items():
        if raw.get(key) not in (None, inert) and not (key == "attention_bias" and family == "qwen2"):
            raise read.fail(key, f"{raw[key]!r} is not implemented, only {inert!r}")
    layers = raw.get("layer_types")
    windowed = isinstance(layers, list) and any(kind != "full_attention" for kind in layers)
    if layers is None and raw.get("use_sliding_window") and raw.get("sliding_window") is not None:
        windowed = read.integer("max_window_layers", 0) < read.integer("num_hidden_layers")
    if windowed:
        raise read.fail("use_sliding_window", "sliding-window attention is not implemented")


def _rope(read: _Reader) -> tuple[float, RopeScaling | None]:
    """(theta, scaling) from either spelling; the newer `rope_parameters` wins."""
    found: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = read.raw.get(key)
        if part is not None and not isinstance(part, dict):
            raise read.fail(key, f"expected an object, got {part!r}")
        found |= part or {}
    rope = _Reader({"rope_theta": read.raw.get("rope_theta")} | found, f"{read.where}: rope_parameters")
    kind = found.get("rope_type", found.get("type", "default"))
    theta = rope.number("rope_theta", 10_000.0)
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise read.fail("rope_scaling", f"rope type {kind!r} is not implemented, only default, llama3")
    return theta, RopeScaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_position_embeddings=rope.integer("original_max_position_embeddings"),
    )
