"""The paper's recipe as configs of stages: traces, filter, SFT, the GRPO ceiling, evaluation.

Where a value comes from is said beside it: [V] read in its source, [2nd] another project's notes about the official
code, [ours] a choice of ours because neither says. A value without a mark follows from another one.
"""

import dataclasses

from w2sr_jax.core.config import (
    DataConfig,
    DecodeConfig,
    MeshConfig,
    OptimizerConfig,
    PriceConfig,
    SamplingConfig,
    opt,
)
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import (
    ENGINES,
    REMAT,
    DistillConfig,
    EvaluateConfig,
    ExperimentConfig,
    GRPOConfig,
    GRPOLossConfig,
    SFTConfig,
    TrainConfig,
)
from w2sr_jax.core.trace_config import FilterConfig, ScoreConfig

TRAINING_PROBLEMS = (
    "hf:hkust-nlp/SimpleRL-Zoo-Data:simplelr_qwen_level3to5/train"  # [V]: MATH levels 3 to 5, about 8.4k
)
BENCHMARKS = ("gsm8k", "math500", "minerva_math", "olympiadbench", "aime24", "amc23")  # [V]: SimpleRL-Zoo's table


@dataclasses.dataclass(slots=True, kw_only=True)
class Recipe(ExperimentConfig):
    """What every experiment of the paper shares; one method a stage."""

    published: str = opt("", "what verified numbers say of this experiment, for comparison")
    student: str = opt(help="hub id, Hugging Face directory or training workdir")
    published_ceiling: str = opt("", "the student after the family's own RL, for ceiling=published")
    ceiling: str = opt("train", "GRPO here, or the published checkpoint", choices=("train", "published"))
    problems: str = opt(TRAINING_PROBLEMS, "training problems: a hub id, gym:TASK, or the path of a local copy")
    benchmarks: tuple[str, ...] = opt(
        tuple(f"bench:{name}" for name in BENCHMARKS), "evaluated on: names of the registry, or paths"
    )
    template: str = opt("qwen-boxed", "prompt of SFT and GRPO")
    teacher_template: str = opt("qwen-boxed", "prompt of the teachers")
    protocol: str = opt("paper", "of every evaluation, see data/protocols.py")
    teacher_protocol: str = opt("", "of the teachers', where their prompt is another; empty is the same")

    trace_tokens: int = opt(4096, "longest trace", minimum=1)
    trace_temperature: float = opt(1.0, "of the traces [ours]: as SimpleRL evaluates its models", minimum=0.0)
    trace_top_p: float = opt(0.95, "of the traces [ours]", minimum=1e-6, maximum=1.0)

    learning_rate: float = opt(1e-5, "peak of SFT", minimum=0.0)
    epochs: float = opt(5.0, "of SFT", minimum=0.0)
    max_length: int = opt(4096, "tokens of an example, prompt included [2nd]", minimum=8)
    batch_size: int = opt(128, "examples a step [2nd]", minimum=1)
    sft_grad_accum: int = opt(8, "microbatches; follow the memory of the devices", minimum=1)
    remat: str = opt("full", "what the backward pass recomputes; likewise", choices=REMAT)

    grpo_steps: int = opt(100, "rollouts [V]: about 100", minimum=1)
    grpo_prompts: int = opt(1024, "problems a rollout [V]", minimum=1)
    grpo_minibatch: int = opt(256, "problems an update [V]", minimum=1)
    grpo_samples: int = opt(8, "responses a problem [V]", minimum=2)
    grpo_tokens: int = opt(8192, "longest response [V]", minimum=1)
    grpo_kl: float = opt(1e-4, "k3 KL to the base model [V]: 1e-4 up to 14B, 1e-3 above", minimum=0.0)
    grpo_grad_accum: int = opt(64, "microbatches; follow the memory of the devices", minimum=1)

    dtype: str = opt("bfloat16", "of activations and decoding [2nd]", choices=("bfloat16", "float32"))
    decode_batch: int = opt(256, "sequences decoded together", minimum=1)
    engine: str = opt("jax", "what writes traces and answers benchmarks", choices=ENGINES)
    mesh: MeshConfig = opt(MeshConfig, "")
    price: PriceConfig = opt(PriceConfig, "")
    seed: int = opt(0, "of sampling, shuffling and the order of problems", minimum=0)
    bootstrap: int = opt(10_000, "resamples of the report's intervals", minimum=100)

    def check(self) -> None:
        if self.ceiling == "published" and not self.published_ceiling:
            raise UsageError("config.published_ceiling: ceiling=published needs the id of that model")

    def distill(self, model: str, template: str, samples: int = 1) -> DistillConfig:
        """What a model answers to the training problems."""
        return DistillConfig(
            model=model,
            problems=self.problems,
            template=template,
            sampling=SamplingConfig(
                max_tokens=self.trace_tokens,
                temperature=self.trace_temperature,
                top_p=self.trace_top_p,
                n=samples,
                seed=self.seed,
            ),
            engine=self.engine,
            decode=self._decode(),
            mesh=self.mesh,
            price=self.price,
        )

    def filter(self, traces: str) -> FilterConfig:
        """Contamination is counted and left in: whether the paper removed any is not known."""
        return FilterConfig(
            problems=self.problems,
            traces=traces,
            contamination=self.benchmarks,
            seed=self.seed,
            price=self.price,
        )

    def score(self, traces: str) -> ScoreConfig:
        """How the untouched student likes traces."""
        return ScoreConfig(
            model=self.student,
            data=dataclasses.replace(self._data(traces, ""), batch_size=self.batch_size // self.sft_grad_accum),
            dtype=self.dtype,
            mesh=self.mesh,
            price=self.price,
        )

    def sft(self, traces: str, problems: str = "") -> SFTConfig:
        """The official recipe [2nd]: all parameters, cosine after a warm-up of a tenth, bf16."""
        return SFTConfig(
            model=self.student,
            data=self._data(traces, problems),
            epochs=self.epochs,
            optimizer=OptimizerConfig(learning_rate=self.learning_rate, schedule="cosine", warmup_ratio=0.1),
            train=TrainConfig(dtype=self.dtype, grad_accum=self.sft_grad_accum, remat=self.remat),
            mesh=self.mesh,
            price=self.price,
        )

    def grpo(self) -> GRPOConfig:
        """SimpleRL-Zoo's recipe [V]. Its limit of 1,024 prompt tokens is not applied: no problem is left out."""
        return GRPOConfig(
            model=self.student,
            problems=self.problems,
            template=self.template,
            steps=self.grpo_steps,
            prompts_per_step=self.grpo_prompts,
            minibatch_prompts=self.grpo_minibatch,
            sampling=SamplingConfig(max_tokens=self.grpo_tokens, temperature=1.0, n=self.grpo_samples, seed=self.seed),
            loss=GRPOLossConfig(kl=self.grpo_kl, entropy=1e-3),
            optimizer=OptimizerConfig(
                learning_rate=5e-7, schedule="constant", warmup_ratio=0.0, weight_decay=1e-2, clip_norm=1.0
            ),
            train=TrainConfig(dtype=self.dtype, grad_accum=self.grpo_grad_accum, remat=self.remat),
            decode=self._decode(),
            mesh=self.mesh,
            price=self.price,
            seed=self.seed,
        )

    def evaluate(self, model: str, source: str, protocol: str) -> EvaluateConfig:
        """A model on one benchmark."""
        return EvaluateConfig(
            model=model,
            problems=source,
            protocol=protocol,
            sampling=SamplingConfig(seed=self.seed),
            engine=self.engine,
            decode=self._decode(),
            mesh=self.mesh,
            price=self.price,
        )

    def _data(self, traces: str, problems: str) -> DataConfig:
        return DataConfig(
            problems=problems or self.problems,
            traces=traces,
            template=self.template,
            max_length=self.max_length,
            batch_size=self.batch_size,
            packing=False,  # [ours]: 128 examples a step, as the batch is counted there, not 128 full rows
            overlong="truncate",  # [2nd]: "cutoff"; what is cut is taught no end
            seed=self.seed,
        )

    def _decode(self) -> DecodeConfig:
        return DecodeConfig(dtype=self.dtype, batch_size=self.decode_batch)
