"""The embedded default as nodes of `w2sr run`: what configs/experiments/micro*.py share.

configs/experiments/micro.py says what the values below were chosen by.
"""

import dataclasses

from w2sr_jax.core.config import (
    CheckpointConfig,
    DataConfig,
    DecodeConfig,
    MeshConfig,
    OptimizerConfig,
    SamplingConfig,
    opt,
)
from w2sr_jax.core.stage_config import (
    ENGINES,
    DistillConfig,
    EvaluateConfig,
    ExperimentConfig,
    GRPOConfig,
    GRPOLossConfig,
    Node,
    ReportConfig,
    SFTConfig,
    TrainConfig,
)
from w2sr_jax.core.trace_config import FilterConfig
from w2sr_jax.micro.config import CorpusConfig, MicroConfig, PretrainConfig, SizeConfig, SplitsConfig
from w2sr_jax.micro.task import WORK

MAX_TOKENS = 40  # the longest careful solution has 33
TRAINED = {  # arm -> the traces that it learns from
    "w2sr": "filter/all.jsonl",
    "w2sr_p": "filter/correct.jsonl",
    "w2sr_n": "filter/incorrect.jsonl",
    "non_reasoner_taught": "non_reasoner_filter/all.jsonl",
    "random_digits": "random_digits_traces/traces.jsonl",
}
ROUTES = {  # arm -> the nodes that make its traces and train it
    **{arm: ("traces", "filter", arm) for arm in ("w2sr", "w2sr_p", "w2sr_n")},
    "non_reasoner_taught": ("non_reasoner_traces", "non_reasoner_filter", "non_reasoner_taught"),
    "random_digits": ("traces", "filter", "random_digits_traces", "random_digits"),
    "grpo": ("grpo",),
}
TEACHERS = {  # arm -> the model that taught it; nobody wrote random digits, but they are made of the teacher's traces
    **dict.fromkeys(("base", "non_reasoner_taught"), "strong"),
    **dict.fromkeys(("w2sr", "w2sr_p", "w2sr_n"), "teacher"),
}
CLAIMS = {
    "students beat their teacher: W2SR > Reasoner teacher": ("w2sr", "teacher"),
    "incorrect traces help: W2SR-N > base": ("w2sr_n", "base"),
    "a small Reasoner teaches better than a large Non-Reasoner": ("w2sr", "non_reasoner_taught"),
    "content beats format: W2SR-N > random digits": ("w2sr_n", "random_digits"),
    "RL earns more than the mode: GRPO > worked mode forced": ("grpo", "forced"),
}


def _pretraining(target: float, learning_rate: float) -> PretrainConfig:
    config = PretrainConfig(target=target)
    config.optimizer.learning_rate = learning_rate
    return config


@dataclasses.dataclass(slots=True, kw_only=True)
class PolicyConfig:
    """What differs between the GRPO of the teacher and that of the ceiling."""

    steps: int = opt(120, "at most", minimum=1)
    prompts: int = opt(16, "problems a step", minimum=1)
    learning_rate: float = opt(2e-4, "constant", minimum=0.0)
    validate_every: int = opt(10, "steps", minimum=1)
    patience: int = opt(4, "validations without a gain of min_gain", minimum=1)
    min_gain: float = opt(0.01, "of greedy validation Pass@1", minimum=0.0)
    stop_at: float = opt(0.0, "stop once validation Pass@1 reaches this; 0 is off", minimum=0.0, maximum=1.0)


@dataclasses.dataclass(slots=True, kw_only=True)
class MicroExperiment(ExperimentConfig):
    """The arms of the experiment for each seed, and a summary over the seeds when there are several."""

    seeds: tuple[int, ...] = opt((0,), "each is a whole experiment: own problems, own base models")
    engine: str = opt("jax", "what generates text", choices=ENGINES)
    splits: SplitsConfig = opt(SplitsConfig, "")
    corpus: CorpusConfig = opt(CorpusConfig, "")
    weak: SizeConfig = opt(
        lambda: SizeConfig(hidden_size=64, intermediate_size=160, num_layers=3, num_heads=2, num_kv_heads=1),
        "of the Reasoner teacher",
    )
    strong: SizeConfig = opt(SizeConfig, "of the student, and of the Non-Reasoner teacher")
    weak_pretraining: PretrainConfig = opt(lambda: _pretraining(target=0.45, learning_rate=2e-3), "")
    strong_pretraining: PretrainConfig = opt(lambda: _pretraining(target=0.6, learning_rate=1.5e-3), "")
    teacher: PolicyConfig = opt(
        lambda: PolicyConfig(steps=40, learning_rate=2.5e-4, validate_every=5, patience=8),
        "GRPO of the weak base model",
    )
    ceiling: PolicyConfig = opt(PolicyConfig, "GRPO of the strong base model")
    trace_problems: int = opt(1600, "training problems that the teachers answer", minimum=1)
    traces: int = opt(400, "traces that each student learns from", minimum=1)
    sft_steps: int = opt(40, "", minimum=1)
    sft_rows: int = opt(16, "packed rows a step", minimum=1)
    sft_rates: dict[str, float] = opt(lambda: dict.fromkeys(TRAINED, 1e-4), "arm -> peak learning rate")
    bootstrap: int = opt(10_000, "resamples of the report's intervals", minimum=100)

    def nodes(self) -> list[Node]:
        nodes = [node for seed in self.seeds for node in self.seed_nodes(seed)]
        if len(self.seeds) > 1:
            reports = tuple(f"@seed{seed}/report" for seed in self.seeds)
            summary = ReportConfig(title="W2SR, model organism", reports=reports, bootstrap=self.bootstrap)
            nodes.append(Node(name="summary", stage="report", config=summary))
        return nodes

    def seed_nodes(self, seed: int) -> list[Node]:
        """Everything of one seed; names are below `seedN/`."""
        at = f"@seed{seed}"
        evaluated = {
            "base": f"{at}/strong/export",
            "forced": f"{at}/strong/export",
            "weak_base": f"{at}/weak/export",
            "teacher": f"{at}/teacher/export",
            **{arm: f"{at}/{arm}/export" for arm in TRAINED},
            "grpo": f"{at}/grpo/export",
        }
        parts: list[tuple[str, str, object]] = [
            ("problems", "micro", MicroConfig(what="problems", seed=seed, splits=self.splits)),
            ("weak", "micro", self.base(seed, at, 2 * seed, self.weak, self.weak_pretraining)),
            ("strong", "micro", self.base(seed, at, 2 * seed + 1, self.strong, self.strong_pretraining)),
            ("teacher", "grpo", self.grpo(seed, at, f"{at}/weak/export", self.teacher)),
            ("traces", "distill", self.distill(at, f"{at}/teacher/export")),
            ("non_reasoner_traces", "distill", self.distill(at, f"{at}/strong/export")),
            ("filter", "filter", self.filter(seed, at, "traces")),
            ("non_reasoner_filter", "filter", self.filter(seed, at, "non_reasoner_traces")),
            (
                "random_digits_traces",
                "micro",
                MicroConfig(what="scramble", seed=seed, traces=f"{at}/filter/all.jsonl"),
            ),
            *((arm, "sft", self.student(seed, at, f"{at}/{TRAINED[arm]}", self.sft_rates[arm])) for arm in TRAINED),
            *(
                (f"{arm}_test", "evaluate", self.evaluate(at, evaluated[arm], WORK if arm == "forced" else ""))
                for arm in evaluated
                if arm != "grpo"
            ),
            ("grpo", "grpo", self.grpo(seed, at, f"{at}/strong/export", self.ceiling)),
            ("grpo_test", "evaluate", self.evaluate(at, evaluated["grpo"])),
            ("report", "report", self._report(seed, at, list(evaluated))),
        ]
        return [Node(name=f"seed{seed}/{name}", stage=stage, config=config) for name, stage, config in parts]

    def base(self, seed: int, at: str, stream: int, size: SizeConfig, pretrain: PretrainConfig) -> MicroConfig:
        """A base model from scratch; `stream` is the seed of its weights and its text."""
        return MicroConfig(
            what="base",
            seed=stream,
            problems=f"{at}/problems",
            size=size,
            corpus=self.corpus,
            pretrain=pretrain,
            mesh=one_device(),
        )

    def grpo(self, seed: int, at: str, model: str, policy: PolicyConfig) -> GRPOConfig:
        """GRPO of a model on the training problems."""
        return GRPOConfig(
            model=model,
            problems=f"{at}/problems/train.jsonl",
            template="plain",
            steps=policy.steps,
            prompts_per_step=policy.prompts,
            minibatch_prompts=policy.prompts,
            sampling=SamplingConfig(max_tokens=MAX_TOKENS, temperature=1.0, n=8, seed=seed),
            loss=GRPOLossConfig(kl=0.0),
            optimizer=OptimizerConfig(
                learning_rate=policy.learning_rate, schedule="constant", warmup_ratio=0.0, b2=0.98
            ),
            train=training(),
            engine=self.engine,
            decode=decoding(),
            checkpoint=CheckpointConfig(every_steps=20, keep_last=1),
            validation=f"{at}/problems/validation.jsonl",
            validate_every=policy.validate_every,
            patience=policy.patience,
            min_gain=policy.min_gain,
            stop_at_reward=policy.stop_at,
            export_dtype="float32",
            seed=seed,
            mesh=one_device(),
        )

    def distill(self, at: str, model: str, prefix: str = "", samples: int = 1, seed: int = 0) -> DistillConfig:
        """A model's answers to the first training problems: one greedy one, or several at temperature 1."""
        return DistillConfig(
            model=model,
            problems=f"{at}/problems/train.jsonl",
            limit=self.trace_problems,
            template="plain",
            response_prefix=prefix,
            sampling=SamplingConfig(max_tokens=MAX_TOKENS, temperature=float(samples > 1), n=samples, seed=seed),
            engine=self.engine,
            decode=decoding(),
            mesh=one_device(),
        )

    def filter(self, seed: int, at: str, traces: str, limit: int | None = None) -> FilterConfig:
        """Traces graded and drawn down to self.traces (or to `limit`; 0 keeps all)."""
        return FilterConfig(
            problems=f"{at}/problems/train.jsonl",
            traces=f"{at}/{traces}/traces.jsonl",
            max_traces=self.traces if limit is None else limit,
            seed=seed,
        )

    def student(self, seed: int, at: str, traces: str, learning_rate: float = 1e-4, base: str = "strong") -> SFTConfig:
        """The strong base model (or another one) trained on some traces."""
        data = DataConfig(
            problems=f"{at}/problems/train.jsonl",
            traces=traces,
            template="plain",
            max_length=64,
            batch_size=self.sft_rows,
            seed=seed,
        )
        return SFTConfig(
            model=f"{at}/{base}/export",
            data=data,
            steps=self.sft_steps,
            optimizer=OptimizerConfig(learning_rate=learning_rate, b2=0.98),
            train=training(),
            checkpoint=CheckpointConfig(every_steps=0, keep_last=1),
            export_dtype="float32",
            mesh=one_device(),
        )

    def evaluate(self, at: str, model: str, prefix: str = "") -> EvaluateConfig:
        """Greedy Pass@1 on the test problems."""
        return EvaluateConfig(
            model=model,
            problems=f"{at}/problems/test.jsonl",
            benchmark="micro",
            template="plain",
            response_prefix=prefix,
            sampling=SamplingConfig(max_tokens=MAX_TOKENS),
            engine=self.engine,
            decode=decoding(),
            mesh=one_device(),
        )

    def _report(self, seed: int, at: str, arms: list[str]) -> ReportConfig:
        return ReportConfig(
            title=f"W2SR, model organism, seed {seed}",
            arms={arm: (f"{at}/{arm}_test",) for arm in arms},
            baselines=("forced",),
            routes={arm: tuple(f"{at}/{name}" for name in names) for arm, names in ROUTES.items()},
            teacher_route=(f"{at}/teacher",),
            teachers={arm: f"{at}/{model}/export" for arm, model in TEACHERS.items()},
            trace_sets={arm: f"{at}/{path}" for arm, path in TRAINED.items()},
            problems=f"{at}/problems/train.jsonl",
            claims=CLAIMS,
            bootstrap=self.bootstrap,
            seed=seed,
        )


def shrink(config: MicroExperiment) -> None:
    """Every stage in a few steps on a handful of problems."""
    config.splits = SplitsConfig(train=256, validation=16, test=32)
    config.strong = SizeConfig(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=1)
    config.weak = config.strong  # one shape is compiled once
    for pretraining in (config.weak_pretraining, config.strong_pretraining):
        pretraining.max_steps = pretraining.validate_every = 300
    config.teacher = PolicyConfig(steps=2, prompts=4, validate_every=1)
    config.ceiling = PolicyConfig(steps=2, prompts=4, validate_every=1)
    config.trace_problems, config.traces, config.sft_steps, config.sft_rows = 256, 8, 2, 4
    config.bootstrap = 200


def one_device() -> MeshConfig:
    return MeshConfig(data=1, fsdp=1, tensor=1)


def decoding() -> DecodeConfig:
    return DecodeConfig(dtype="float32", batch_size=256)


def training() -> TrainConfig:
    return TrainConfig(dtype="float32", remat="none", scan_layers=False, loss_chunk=64)
