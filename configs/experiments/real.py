"""The same pipeline on a real model and a real benchmark: an experiment that proves the plumbing, not a claim.

SmolLM2-135M-Instruct (or any Hugging Face directory) teaches itself on GSM8K: 32 traces of at most 200 tokens, 5
full-parameter SFT steps on all of them, 16 problems evaluated before and after. Accuracies are near zero by nature.

    w2sr run --config=configs/experiments/real.py --workdir=runs/real \
        --config.model=SMOLLM2_DIR --config.problems=gsm8k.jsonl
"""

import dataclasses

from w2sr_jax.core.config import CheckpointConfig, DataConfig, DecodeConfig, OptimizerConfig, SamplingConfig, opt
from w2sr_jax.core.stage_config import (
    ENGINES,
    DistillConfig,
    EvaluateConfig,
    ExperimentConfig,
    Node,
    ReportConfig,
    SFTConfig,
    TrainConfig,
)
from w2sr_jax.core.trace_config import FilterConfig


@dataclasses.dataclass(slots=True, kw_only=True)
class RealExperiment(ExperimentConfig):
    """Distill, filter, SFT, evaluate, report with one model as teacher and student."""

    model: str = opt(help="Hugging Face directory or hub id of teacher and student")
    problems: str = opt(help="problems to distill from and to evaluate on")
    template: str = opt("chat", "prompt template, see data/chat.py")
    traces: int = opt(32, "problems distilled", minimum=1)
    eval_problems: int = opt(16, "problems evaluated", minimum=1)
    max_tokens: int = opt(200, "longest response, in tokens", minimum=1)
    steps: int = opt(5, "SFT steps", minimum=1)
    max_length: int = opt(512, "tokens of a packed row", minimum=8)
    batch_size: int = opt(4, "packed rows per step", minimum=1)
    dtype: str = opt(
        "float32", "of decoding and activations (CPUs are slow at bfloat16)", choices=("float32", "bfloat16")
    )
    engine: str = opt("jax", "what generates text", choices=ENGINES)

    def nodes(self) -> list[Node]:
        sampling = SamplingConfig(max_tokens=self.max_tokens)
        decode = DecodeConfig(dtype=self.dtype, batch_size=32)

        def evaluate(model: str) -> EvaluateConfig:
            return EvaluateConfig(
                model=model,
                problems=self.problems,
                limit=self.eval_problems,
                template=self.template,
                sampling=sampling,
                decode=decode,
                engine=self.engine,
            )

        return [
            Node(
                name="traces",
                stage="distill",
                config=DistillConfig(
                    model=self.model,
                    problems=self.problems,
                    limit=self.traces,
                    template=self.template,
                    sampling=sampling,
                    decode=decode,
                    engine=self.engine,
                ),
            ),
            Node(
                name="filtered",
                stage="filter",
                config=FilterConfig(problems=self.problems, traces="@traces/traces.jsonl"),
            ),
            Node(
                name="w2sr",
                stage="sft",
                config=SFTConfig(
                    model=self.model,
                    data=DataConfig(
                        problems=self.problems,
                        traces="@filtered/all.jsonl",
                        template=self.template,
                        max_length=self.max_length,
                        batch_size=self.batch_size,
                    ),
                    steps=self.steps,
                    optimizer=OptimizerConfig(learning_rate=1e-5),
                    train=TrainConfig(dtype=self.dtype, grad_accum=self.batch_size, loss_chunk=128),
                    # A checkpoint of 5 steps would be 1.6 GB for a run of a minute; the last one is enough.
                    checkpoint=CheckpointConfig(every_steps=0, keep_last=1),
                ),
            ),
            Node(name="eval_base", stage="evaluate", config=evaluate(self.model)),
            Node(name="eval_w2sr", stage="evaluate", config=evaluate("@w2sr/export")),
            Node(
                name="report",
                stage="report",
                config=ReportConfig(
                    title="W2SR on a real model: plumbing",
                    arms={"base": ("@eval_base",), "W2SR": ("@eval_w2sr",)},
                    routes={"W2SR": ("@traces", "@filtered", "@w2sr")},
                    claims={"W2SR student > base student": ("W2SR", "base")},
                ),
            ),
        ]


def get_config(variant: str | None = None) -> RealExperiment:
    """No variants: model and problems come from the command line."""
    return RealExperiment()
