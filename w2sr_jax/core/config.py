"""Typed config dataclasses: one per concern here, one per stage in stage_, trace_ and tool_config.py.

A config is a plain nested dataclass that a file's `get_config()` returns. `validate(config)` is the first line of
every stage: it type-checks each field and calls each part's own `check()`, after the command line's overrides.
`opt(default, "help")` carries the text that `w2sr STAGE --help` prints, so a field is described in one place.
"""

import dataclasses
import typing
from typing import Any

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.field_types import fits, type_name


def opt(default: Any = dataclasses.MISSING, help: str = "", **limits: Any) -> Any:
    """A dataclass field with its help text; `minimum`, `maximum` and `choices` are checked by `validate`.

    `later=True` marks a field that is younger than finished runs: at its default it does not show in `to_dict`, so that
    they are still reused. `watch=True` marks one that says how a run is watched and not what it computes: it is never
    in `to_dict`, so that a run may resume with another value. `reads=True` marks paths whose content is an input of the
    stage (see `references.inputs`). A callable default is a factory. Without a default the field is required (and an
    empty string is refused).
    """
    metadata = {"help": help} | limits
    if default is dataclasses.MISSING:
        return dataclasses.field(default="", metadata=metadata | {"required": True})
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(slots=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; one of them may be -1 (all that are left)."""

    data: int = opt(1, "replicas: batch split, parameters copied")
    fsdp: int = opt(-1, "batch and parameters split")
    tensor: int = opt(1, "heads, ffn and vocabulary split")

    def check(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        if sum(s == -1 for s in sizes) > 1 or any(s < 1 and s != -1 for s in sizes):
            raise UsageError(f"mesh: sizes must be positive, with at most one -1, got {sizes}")


@dataclasses.dataclass(slots=True, kw_only=True)
class SamplingConfig:
    """How an engine turns logits into tokens. temperature 0 is greedy."""

    max_tokens: int = opt(1024, "longest response, in tokens", minimum=1)
    temperature: float = opt(0.0, "0 is greedy", minimum=0.0)
    top_p: float = opt(1.0, "nucleus mass kept", minimum=1e-6, maximum=1.0)
    top_k: int = opt(0, "tokens kept; 0 keeps all", minimum=0)
    n: int = opt(1, "samples per prompt", minimum=1)
    seed: int = opt(0, "base seed; each (problem, sample) draws from its own stream", minimum=0)

    def check(self) -> None:
        if self.temperature == 0 and self.n > 1:
            raise UsageError("sampling: n > 1 needs temperature > 0, greedy samples are all the same")


@dataclasses.dataclass(slots=True, kw_only=True)
class VllmConfig:
    """Where vLLM runs; read with --config.engine=vllm only."""

    mode: str = opt("offline", "in a child process, or behind a server that is started", choices=("offline", "server"))
    urls: tuple[str, ...] = opt((), "servers that run already (http://HOST:PORT, ...); they share the requests")
    served_model: str = opt("", "the model's name on those servers, where it is not the model's path or hub id")
    max_model_len: int = opt(0, "longest prompt and response; 0 is the model's, or what fits", minimum=0)
    compile: bool = opt(False, "on a CPU: torch.compile, faster after a much longer start", later=True)
    memory_fraction: float = opt(0.9, "of an accelerator's memory that vLLM takes", minimum=0.01, maximum=1.0)
    restarts: int = opt(8, "times that a dead vLLM is started again before the stage gives up", minimum=0)
    timeout_s: float = opt(3600.0, "longest wait for one response of a server, in seconds", minimum=1.0)


@dataclasses.dataclass(slots=True, kw_only=True)
class DecodeConfig:
    """How the engine runs, apart from what it samples."""

    dtype: str = opt("bfloat16", "weights and activations", choices=("bfloat16", "float32"))
    batch_size: int = opt(64, "sequences decoded together", minimum=1)
    vllm: VllmConfig = opt(VllmConfig, "")


@dataclasses.dataclass(slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a warm-up and a schedule (the official SFT recipe is the default)."""

    learning_rate: float = opt(1e-5, "peak", minimum=0.0)
    schedule: str = opt("cosine", "after the warm-up", choices=("cosine", "linear", "constant"))
    final_fraction: float = opt(0.0, "learning rate at the end, as a fraction of the peak", minimum=0.0, maximum=1.0)
    warmup_ratio: float = opt(0.1, "share of all steps", minimum=0.0, maximum=1.0)
    # Moments are divided by 1 - b, and a gradient of 0 by eps: neither may be 0.
    b1: float = opt(0.9, "first-moment decay", minimum=0.0, maximum=1 - 1e-6)
    b2: float = opt(0.999, "second-moment decay", minimum=0.0, maximum=1 - 1e-6)
    eps: float = opt(1e-8, "added to the root of the second moment", minimum=1e-30)
    weight_decay: float = opt(0.0, "decoupled; on matrices only, not on norms and biases", minimum=0.0)
    clip_norm: float = opt(1.0, "global gradient norm; 0 is off", minimum=0.0)
    moments: str = opt(
        "float32", "of both moments; bfloat16 halves their memory", choices=("float32", "bfloat16"), later=True
    )
    offload: bool = opt(
        False, "moments wait in the host's memory between updates: 8 bytes a parameter less, two transfers", later=True
    )


@dataclasses.dataclass(slots=True, kw_only=True)
class CheckpointConfig:
    """When the training state is saved; a last save always happens, and in grpo one of each new best."""

    every_steps: int = opt(100, "0 saves only at the end", minimum=0)
    keep_last: int = opt(2, "older ones are deleted", minimum=1)
    keep_best: int = opt(0, "so many more: lowest loss (sft), highest validation (grpo)", minimum=0)


@dataclasses.dataclass(slots=True, kw_only=True)
class PriceConfig:
    """What the ledger charges for a device. The default charges nothing, and says so."""

    usd_per_device_hour: float = opt(0.0, "0 leaves the cost column empty", minimum=0.0)
    source: str = opt("", "where and when the price was read")


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """What `data.pipeline.make_pipeline` feeds to SFT."""

    problems: str = opt(help="problems.jsonl, a benchmark file, or hf:DATASET_ID[:SPLIT]", reads=True)
    traces: str = opt(help="graded or raw traces (JSONL), as `filter` or `distill` write them", reads=True)
    template: str = opt("qwen-boxed", "prompt template, see data/chat.py")
    max_length: int = opt(4096, "tokens of a packed row", minimum=8)
    batch_size: int = opt(128, "packed rows per optimizer step, over all processes", minimum=1)
    packing: bool = opt(True, "several examples in a row (False: one each)")
    overlong: str = opt("drop", "an example longer than max_length", choices=("drop", "truncate", "error"))
    seed: int = opt(0, "shuffling", minimum=0)


def validate(config: Any, path: str = "config") -> None:
    """Checks types, limits and cross-field rules of a config and of everything nested in it.

    Raises:
        UsageError: one line that names the key and the value.
    """
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, key, limits = getattr(config, field.name), f"{path}.{field.name}", field.metadata
        if not fits(value, kinds[field.name], finite=True):
            raise UsageError(f"{key}: expected {type_name(kinds[field.name])}, got {value!r}")
        if dataclasses.is_dataclass(value):
            validate(value, key)
            continue
        if isinstance(value, dict):
            for name, inner in value.items():
                if dataclasses.is_dataclass(inner):
                    validate(inner, f"{key}.{name}")
        if limits.get("required") and value == "":
            flag = f"; set it with --{key}=..." if key.startswith("config.") else ""  # a node of an experiment has none
            raise UsageError(f"{key}: required ({limits['help']}){flag}")
        if "choices" in limits and value not in limits["choices"]:
            raise UsageError(f"{key}: must be one of {', '.join(map(str, limits['choices']))}, got {value!r}")
        if "minimum" in limits and value < limits["minimum"]:
            raise UsageError(f"{key}: must be at least {limits['minimum']}, got {value}")
        if "maximum" in limits and value > limits["maximum"]:
            raise UsageError(f"{key}: must be at most {limits['maximum']}, got {value}")
    if hasattr(type(config), "check"):
        config.check()


def to_dict(config: Any) -> dict[str, Any]:
    """The config as JSON values, keys in the order of declaration.

    Without `later` fields that are at their default, and without `watch` fields.
    """
    return _plain(config)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if not _left_alone(f, getattr(value, f.name))]
        return {f.name: _plain(getattr(value, f.name)) for f in fields}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _left_alone(field: dataclasses.Field[Any], value: Any) -> bool:
    made = field.default_factory
    default = field.default if made is dataclasses.MISSING else made()
    return bool(field.metadata.get("watch")) or (bool(field.metadata.get("later")) and value == default)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a.b": value} of nested dicts, for naming the keys in which two configs differ."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}" if prefix else key).items()
    }


def describe(config: Any, prefix: str = "config") -> list[str]:
    """Lines `--config.key=value  help` for every key of a config, for `w2sr STAGE --help`."""
    lines: list[str] = []
    for field in dataclasses.fields(config):
        key, value = f"{prefix}.{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            lines += describe(value, key)
            continue
        shown = "(required)" if field.metadata.get("required") and value == "" else str(value)
        choices = field.metadata.get("choices", ())
        extra = f" [{'|'.join(map(str, choices))}]" if len(choices) > 1 else ""
        lines.append(f"  --{key}={shown}".ljust(50) + f" {field.metadata.get('help', '')}{extra}")
    return lines
