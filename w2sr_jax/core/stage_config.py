"""Configs of the stages that run a model, and of experiments.

A model is a Hugging Face directory, a hub id or a training workdir. Stages between distill and sft have
theirs in trace_config.py, plan, compare and doctor in tool_config.py.
"""

import dataclasses
import re
from typing import Any

from w2sr_jax.core.config import (
    CheckpointConfig,
    DataConfig,
    DecodeConfig,
    MeshConfig,
    OptimizerConfig,
    PriceConfig,
    SamplingConfig,
    opt,
)
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.profile import profile_window

ENGINES = ("jax", "vllm")
# Named ways to evaluate (data/protocols.py holds their values), and avg@K for any K of 2 or more.
PROTOCOLS = ("simplerl", "simplerl-base", "simplerl-abel", "simplerl-abel-base", "paper", "greedy")
AVERAGE_OF_K = re.compile(r"avg@([2-9]|[1-9]\d{1,3})")
REMAT = ("none", "matmuls", "projections", "attention", "full", "offload")
ATTENTION = ("auto", "dense", "splash", "flash", "cudnn")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(slots=True, kw_only=True)
class ConvertConfig:
    """`w2sr convert`: a Hugging Face model read, checked tensor by tensor, and written again."""

    model: str = opt(help="Hugging Face directory, hub id or training workdir", reads=True)
    dtype: str = opt("bfloat16", "of the tensors written", choices=("bfloat16", "float32"))
    max_shard_gb: float = opt(5.0, "size of one safetensors file, in GB", minimum=1e-6)


@dataclasses.dataclass(slots=True, kw_only=True)
class DistillConfig:
    """`w2sr distill`: a teacher writes traces for problems."""

    model: str = opt(help="the teacher", reads=True)
    problems: str = opt(help="problems.jsonl, a benchmark file, or hf:DATASET_ID[:SPLIT]", reads=True)
    limit: int = opt(0, "first so many problems; 0 is all", minimum=0)
    template: str = opt("qwen-boxed", "prompt template, see data/chat.py")
    response_prefix: str = opt("", "text that every response is made to begin with")
    sampling: SamplingConfig = opt(SamplingConfig, "")
    engine: str = opt("jax", "what generates text", choices=ENGINES)
    decode: DecodeConfig = opt(DecodeConfig, "")
    mesh: MeshConfig = opt(MeshConfig, "")
    price: PriceConfig = opt(PriceConfig, "")


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
    """What SFT and GRPO share on the way through a model: memory, numerics and when to save."""

    dtype: str = opt(
        "bfloat16", "of activations; master weights and moments are float32", choices=("bfloat16", "float32")
    )
    remat: str = opt("full", "what the backward pass recomputes, see model/remat.py", choices=REMAT)
    scan_layers: bool = opt(True, "one compiled layer body (False: unrolled, faster on CPU, slower to compile)")
    loss_chunk: int = opt(512, "tokens per row whose logits exist at once", minimum=1)
    grad_accum: int = opt(1, "microbatches per optimizer step", minimum=1)
    attention: str = opt(
        "auto",
        "auto: splash on TPU, cudnn or flash on GPU, dense elsewhere; naming one is for debugging",
        choices=ATTENTION,
        later=True,
    )
    grad_dtype: str = opt(
        "float32", "of gradients summed over microbatches; bfloat16 halves their memory", choices=DTYPES, later=True
    )


@dataclasses.dataclass(slots=True, kw_only=True)
class SFTConfig:
    """`w2sr sft`: full-parameter NLL on response tokens and the closing EOS."""

    model: str = opt(help="the student to start from", reads=True)
    data: DataConfig = opt(DataConfig, "")
    epochs: float = opt(1.0, "passes over the packed rows; ignored when steps is set", minimum=0.0)
    steps: int = opt(0, "optimizer steps; 0 derives them from epochs", minimum=0)
    optimizer: OptimizerConfig = opt(OptimizerConfig, "")
    train: TrainConfig = opt(TrainConfig, "")
    checkpoint: CheckpointConfig = opt(CheckpointConfig, "")
    export_dtype: str = opt("bfloat16", "of export/", choices=("bfloat16", "float32"))
    mesh: MeshConfig = opt(MeshConfig, "")
    price: PriceConfig = opt(PriceConfig, "")
    profile: str = opt("", "START:COUNT takes a jax.profiler trace of these steps, counted from 0", watch=True)
    peak_tflops: float = opt(
        0.0, "peak of a chip that mfu is of; 0 is the known chip's in bf16", minimum=0.0, watch=True
    )

    def check(self) -> None:
        profile_window(self.profile)


@dataclasses.dataclass(slots=True, kw_only=True)
class GRPOLossConfig:
    """The policy-gradient loss (DeepSeekMath eq. 3) and its later variants."""

    advantage: str = opt("grpo", "grpo: (r-mean)/(std+1e-6); dr_grpo: r-mean", choices=("grpo", "dr_grpo"))
    ratio: str = opt("token", "token: GRPO; sequence: GSPO", choices=("token", "sequence"))
    aggregate: str = opt(
        "token_mean",
        "token_mean over the batch; sequence_mean; constant: sum/max_tokens (Dr.GRPO)",
        choices=("token_mean", "sequence_mean", "constant"),
    )
    clip_low: float = opt(0.2, "ratio may fall to 1-clip_low", minimum=0.0, maximum=1.0)
    clip_high: float = opt(0.2, "ratio may rise to 1+clip_high (DAPO: 0.28)", minimum=0.0)
    kl: float = opt(1e-4, "weight of the k3 KL to the frozen reference; 0 loads no reference", minimum=0.0)
    entropy: float = opt(0.0, "weight of the entropy bonus", minimum=0.0)
    tis_cap: float = opt(0.0, "truncated importance sampling against the sampler's logprobs; 0 is off", minimum=0.0)


@dataclasses.dataclass(slots=True, kw_only=True)
class GRPOConfig:
    """`w2sr grpo`: reinforcement learning with verifiable rewards, the expensive ceiling."""

    model: str = opt(help="the policy to start from, which is also the frozen reference", reads=True)
    problems: str = opt(help="training problems", reads=True)
    template: str = opt("qwen-boxed", "prompt template, see data/chat.py")
    steps: int = opt(100, "most rollout steps", minimum=1)
    prompts_per_step: int = opt(1024, "problems asked per rollout", minimum=1)
    minibatch_prompts: int = opt(256, "problems per optimizer update", minimum=1)
    epochs_per_step: int = opt(1, "passes over one rollout", minimum=1)
    sampling: SamplingConfig = opt(lambda: SamplingConfig(max_tokens=8192, temperature=1.0, n=8), "")
    loss: GRPOLossConfig = opt(GRPOLossConfig, "")
    dynamic_sampling: bool = opt(False, "ask again for groups without variance (DAPO)")
    max_resamples: int = opt(3, "rounds of asking again per step", minimum=0)
    overlong_buffer: int = opt(
        0, "soft penalty over the last so many tokens before max_tokens (DAPO); 0 is off", minimum=0
    )
    optimizer: OptimizerConfig = opt(
        lambda: OptimizerConfig(learning_rate=5e-7, schedule="constant", warmup_ratio=0.0, weight_decay=1e-2), ""
    )
    train: TrainConfig = opt(TrainConfig, "")
    engine: str = opt("jax", "what generates text", choices=ENGINES)
    decode: DecodeConfig = opt(DecodeConfig, "")
    sync_dir: str = opt("", "vllm: where weights pass through; empty is tmpfs. Remote servers must see it, too")
    sync_tolerance: float = opt(
        0.0, "vllm: largest difference of logprobs after a sync; 0 is 1e-3 in float32, 0.5 in bfloat16", minimum=0.0
    )
    checkpoint: CheckpointConfig = opt(lambda: CheckpointConfig(every_steps=10), "")
    validation: str = opt("", "problems for the convergence rule (greedy Pass@1); empty runs all steps", reads=True)
    validate_every: int = opt(10, "rollout steps between validations", minimum=1)
    patience: int = opt(3, "stop after so many validations without a gain of min_gain; the best is exported", minimum=1)
    min_gain: float = opt(0.01, "smallest rise of validation Pass@1 that counts", minimum=0.0)
    stop_at_reward: float = opt(0.0, "stop once validation Pass@1 reaches this; 0 is off", minimum=0.0, maximum=1.0)
    grading_workers: int = opt(2, "grading processes", minimum=1)
    deadline_s: float = opt(10.0, "longest time for grading one response, in seconds", minimum=0.1)
    export_dtype: str = opt("bfloat16", "of export/", choices=("bfloat16", "float32"))
    seed: int = opt(0, "order of the problems", minimum=0)
    mesh: MeshConfig = opt(MeshConfig, "")
    price: PriceConfig = opt(PriceConfig, "")
    profile: str = opt("", "START:COUNT takes a jax.profiler trace of these steps, counted from 0", watch=True)
    peak_tflops: float = opt(
        0.0, "peak of a chip that mfu is of; 0 is the known chip's in bf16", minimum=0.0, watch=True
    )

    def check(self) -> None:
        profile_window(self.profile)
        if self.sampling.n < 2:
            raise UsageError(f"config.sampling.n: a group needs at least 2 samples, got {self.sampling.n}")
        if self.prompts_per_step % self.minibatch_prompts:
            raise UsageError(
                f"config.minibatch_prompts: {self.minibatch_prompts} does not divide "
                f"prompts_per_step={self.prompts_per_step}"
            )
        if self.stop_at_reward and not self.validation:
            raise UsageError("config.stop_at_reward: is a validation score; set config.validation to problems")
        if self.loss.tis_cap and (self.sampling.temperature != 1.0 or self.sampling.top_p < 1.0 or self.sampling.top_k):
            raise UsageError(
                "config.loss.tis_cap: the sampler's logprobs are of temperature 1, nothing left out; "
                "sample with temperature 1, top_p 1 and top_k 0"
            )
        if self.overlong_buffer > self.sampling.max_tokens:
            raise UsageError(
                f"config.overlong_buffer: the last {self.overlong_buffer} of "
                f"config.sampling.max_tokens = {self.sampling.max_tokens} tokens are more than there are"
            )
        if self.dynamic_sampling and not self.max_resamples:
            raise UsageError("config.max_resamples: dynamic sampling needs at least 1 round of asking again")


@dataclasses.dataclass(slots=True, kw_only=True)
class EvaluateConfig:
    """`w2sr evaluate`: Pass@1 (greedy) or avg@k and unbiased pass@k (sampled) on one benchmark."""

    model: str = opt(help="Hugging Face directory, hub id or training workdir", reads=True)
    problems: str = opt(help="bench:NAME, a benchmark file or problems.jsonl", reads=True)
    benchmark: str = opt("", "name in the report; empty takes the file's name")
    protocol: str = opt("", f"fixes template, stops and sampling: {', '.join(PROTOCOLS)}, avg@K; empty: as set below")
    limit: int = opt(0, "first so many problems; 0 is all", minimum=0)
    template: str = opt("qwen-boxed", "prompt template, see data/chat.py")
    response_prefix: str = opt("", "text that every response is made to begin with (a forced mode)")
    sampling: SamplingConfig = opt(SamplingConfig, "")
    engine: str = opt("jax", "what generates text", choices=ENGINES)
    decode: DecodeConfig = opt(DecodeConfig, "")
    workers: int = opt(2, "grading processes", minimum=1)
    deadline_s: float = opt(10.0, "longest time for grading one response, in seconds", minimum=0.1)
    mesh: MeshConfig = opt(MeshConfig, "")
    price: PriceConfig = opt(PriceConfig, "")

    def check(self) -> None:
        if not self.protocol:
            return
        if self.protocol not in PROTOCOLS and not AVERAGE_OF_K.fullmatch(self.protocol):
            raise UsageError(f"config.protocol: must be one of {', '.join(PROTOCOLS)}, avg@K, got {self.protocol!r}")
        default = EvaluateConfig(sampling=SamplingConfig(seed=self.sampling.seed))
        for key in ("template", "sampling"):
            if getattr(self, key) != getattr(default, key):
                raise UsageError(
                    f"config.{key}: protocol {self.protocol!r} fixes it; leave it alone (sampling.seed may be set), or "
                    "leave the protocol empty"
                )


@dataclasses.dataclass(slots=True, kw_only=True)
class ReportConfig:
    """`w2sr report`: one of arms (an experiment), reports (seeds), rows (published), sections, traces is set.

    A route is a list of stage workdirs whose ledger lines are summed: what it costs to get that arm's model.
    """

    title: str = opt("Weak-to-strong reasoning", "of the page")
    arms: dict[str, tuple[str, ...]] = opt(dict, "arm -> evaluate workdirs, one per benchmark", reads=True)
    baselines: tuple[str, ...] = opt(
        (), "arms that need no training (a forced mode): shown beside RGR, own decoding allowed"
    )
    base: str = opt("base", "arm that RGR counts from")
    ceiling: str = opt("grpo", "arm that RGR counts to")
    routes: dict[str, tuple[str, ...]] = opt(dict, "arm -> workdirs of its own training route", reads=True)
    teacher_route: tuple[str, ...] = opt(
        (), "workdirs that made the teacher; charged separately, where teachers names no other", reads=True
    )
    claims: dict[str, tuple[str, str]] = opt(dict, "sentence -> (higher arm, lower arm)")
    reports: tuple[str, ...] = opt((), "report workdirs of the seeds to summarise", reads=True)
    rows: dict[str, tuple[float, ...]] = opt(dict, "arm -> published Pass@1 in %, one for each of row_problems")
    row_problems: dict[str, int] = opt(dict, "benchmark -> how many problems it has")
    student_row: tuple[float, ...] = opt((), "Pass@1 in % of your student, beside rows and in their order")
    sections: dict[str, str] = opt(dict, "title -> report workdir; put together on one page", later=True, reads=True)
    teachers: dict[str, str] = opt(
        dict, "arm -> model that taught it (for the base: itself); its size is shown", later=True, reads=True
    )
    published: str = opt("", "published scores of the same models, shown for comparison", later=True)
    traces: tuple[str, ...] = opt(
        (),
        "trace lab alone: files or workdirs of distill, filter, transform, each PATH or NAME=PATH",
        later=True,
        reads=True,
    )
    students: tuple[str, ...] = opt(
        (), "evaluate workdirs of their students, in the same order", later=True, reads=True
    )
    trace_sets: dict[str, str] = opt(dict, "arm, or any name -> the same, beside arms", later=True, reads=True)
    problems: str = opt(
        "", "of the traces: their levels, grades for those without, and prompts for score_model", later=True, reads=True
    )
    score_model: str = opt("", "a student, whose perplexity of each trace is wanted", later=True, reads=True)
    score_template: str = opt("qwen-boxed", "its prompt", later=True)
    score_max_length: int = opt(4096, "longest trace that it reads, in tokens", minimum=8, later=True)
    score_batch: int = opt(8, "traces read together", minimum=1, later=True)
    score_dtype: str = opt("bfloat16", "of its activations", choices=("bfloat16", "float32"), later=True)
    row_notes: tuple[str, ...] = opt((), "where rows come from and how they were made, shown in the report")
    allow_mixed_decoding: bool = opt(False, "compare results made under different decoding protocols")
    bootstrap: int = opt(10_000, "resamples of the intervals", minimum=100)
    seed: int = opt(0, "of the experiment; also of the bootstrap", minimum=0)

    def check(self) -> None:
        if sum(map(bool, (self.arms, self.reports, self.rows, self.sections, self.traces))) != 1:
            raise UsageError("config.arms, .reports, .rows, .sections, .traces: set one of the five")
        if self.students and len(self.students) != len(self.traces):
            raise UsageError(f"config.students: {len(self.students)} for {len(self.traces)} of config.traces")
        if self.score_model and not self.problems:
            raise UsageError("config.problems: config.score_model needs the problems that the traces answer")
        rows = {f"rows.{arm}": row for arm, row in self.rows.items()}
        if self.student_row:
            rows["student_row"] = self.student_row
        for key, row in rows.items():
            if len(row) != len(self.row_problems) or not all(0 <= value <= 100 for value in row):
                wanted = ", ".join(self.row_problems) or "config.row_problems"
                raise UsageError(f"config.{key}: expected Pass@1 in % for each of {wanted}, got {row}")


@dataclasses.dataclass(slots=True, kw_only=True)
class Node:
    """One stage of an experiment. In its config, a string '@NAME/PATH' is a path in the workdir of node NAME."""

    name: str
    stage: str
    config: Any


@dataclasses.dataclass(slots=True, kw_only=True)
class ExperimentConfig:
    """What `w2sr run` takes: subclass it in a config file and return the nodes, in any order."""

    def nodes(self) -> list[Node]:
        if type(self) is ExperimentConfig:
            raise UsageError("--config=FILE.py[:VARIANT] is required, see configs/experiments/")
        raise UsageError(f"{type(self).__name__}: a config for `w2sr run` overrides nodes()")
