"""Configs of the embedded default: `w2sr micro`."""

import dataclasses

from w2sr_jax.core.config import MeshConfig, OptimizerConfig, PriceConfig, opt
from w2sr_jax.core.errors import UsageError


@dataclasses.dataclass(slots=True, kw_only=True)
class SplitsConfig:
    """Problems a split; all of them distinct, and none of them in the pretraining corpus."""

    train: int = opt(2048, "for distillation and GRPO", minimum=1)
    validation: int = opt(250, "for stop rules and learning rates", minimum=1)
    test: int = opt(500, "for the report only", minimum=1)


@dataclasses.dataclass(slots=True, kw_only=True)
class SizeConfig:
    """A decoder. The default is the student's size, about a million parameters."""

    hidden_size: int = opt(128, "", minimum=2)
    intermediate_size: int = opt(512, "", minimum=1)
    num_layers: int = opt(4, "", minimum=1)
    num_heads: int = opt(4, "", minimum=1)
    num_kv_heads: int = opt(2, "", minimum=1)
    family: str = opt(
        "qwen2", "architecture; llama numbers its tokens in another way, too", choices=("qwen2", "llama"), later=True
    )


@dataclasses.dataclass(slots=True, kw_only=True)
class CorpusConfig:
    """What base models read: problems with an answer, written in one of three ways."""

    direct_share: float = opt(0.65, "documents that answer without work", minimum=0.0, maximum=1.0)
    careful_share: float = opt(0.4, "of the worked documents; the others are sloppy", minimum=0.0, maximum=1.0)
    direct_lengths: tuple[float, ...] = opt(
        (2.0, 1.0, 1.0, 1.0, 1.0), "relative frequency of 1, 2, ... operations, answered directly"
    )
    worked_lengths: tuple[float, ...] = opt((1.0,) * 5, "relative frequency of 1, 2, ... operations, worked")
    row_length: int = opt(48, "tokens of a packed row", minimum=48)


@dataclasses.dataclass(slots=True, kw_only=True)
class PretrainConfig:
    """From scratch until a model is good enough at careful answers, which takes longer with some seeds than others."""

    target: float = opt(
        0.5,
        "stop at this greedy validation Pass@1 of responses that are made to begin with care",
        minimum=0.0,
        maximum=1.0,
    )
    rows: int = opt(16, "packed rows a step; half as many take more than twice as many steps", minimum=1)
    validate_every: int = opt(25, "steps between validations", minimum=1)
    validation_limit: int = opt(250, "first so many validation problems; 0 is all", minimum=0)
    max_steps: int = opt(4000, "stop here at the latest", minimum=1)
    warmup_steps: int = opt(100, "of the learning rate, which is constant from then on", minimum=1)
    ema: float = opt(0.97, "decay of the averaged weights, which are validated and written", minimum=0.0, maximum=1.0)
    optimizer: OptimizerConfig = opt(
        lambda: OptimizerConfig(learning_rate=3e-3, schedule="constant", b2=0.98, weight_decay=0.01),
        "the schedule and warm-up ratio are not looked at",
    )


@dataclasses.dataclass(slots=True, kw_only=True)
class MicroConfig:
    """`w2sr micro`: one of the things that the embedded default is made of."""

    what: str = opt(
        "problems",
        "problems: train, validation and test; base: a model from scratch; scramble: traces with random digits; "
        "solutions: careful answers to problems",
        choices=("problems", "base", "scramble", "solutions"),
    )
    seed: int = opt(0, "of whatever is made", minimum=0)
    domain: str = opt(
        "arithmetic", "problems, base, solutions: the task", choices=("arithmetic", "letters"), later=True
    )
    splits: SplitsConfig = opt(SplitsConfig, "")
    problems: str = opt(
        "", "base: a `what=problems` workdir, whose problems stay out of the corpus; solutions: a file", reads=True
    )
    size: SizeConfig = opt(SizeConfig, "")
    corpus: CorpusConfig = opt(CorpusConfig, "")
    pretrain: PretrainConfig = opt(PretrainConfig, "")
    traces: str = opt("", "scramble: the traces whose digits are drawn anew", reads=True)
    mesh: MeshConfig = opt(MeshConfig, "")
    price: PriceConfig = opt(PriceConfig, "")

    def check(self) -> None:
        needed = {"base": "problems", "scramble": "traces", "solutions": "problems"}
        key = needed.get(self.what)
        if key and not {"problems": self.problems, "traces": self.traces}[key]:
            raise UsageError(f"config.{key}: required for what={self.what}")
