"""The paper's experiment as the nodes of `w2sr run`; configs/paper/ holds one function for each of its experiments.

Where a value comes from is said beside it: [V] read in its source, [2nd] another project's notes about the official
code, [ours] a choice of ours because neither says. A value without a mark follows from another one.
"""

import dataclasses
from collections.abc import Callable

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

# [V]: the Reasoners are SimpleRL-Zoo's checkpoints, the Non-Reasoners the models that those were trained from.
TEACHERS = {
    "0.5B": ("hkust-nlp/Qwen-2.5-0.5B-SimpleRL-Zoo", "Qwen/Qwen2.5-0.5B"),
    "1.5B": ("hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo", "Qwen/Qwen2.5-1.5B"),
    "7B": ("hkust-nlp/Qwen-2.5-7B-SimpleRL-Zoo", "Qwen/Qwen2.5-7B"),
    "14B": ("hkust-nlp/Qwen-2.5-14B-SimpleRL-Zoo", "Qwen/Qwen2.5-14B"),
    "32B": ("hkust-nlp/Qwen-2.5-32B-SimpleRL-Zoo", "Qwen/Qwen2.5-32B"),
    "Math-7B": ("hkust-nlp/Qwen-2.5-Math-7B-SimpleRL-Zoo", "Qwen/Qwen2.5-Math-7B"),
}
TRAINING_PROBLEMS = (
    "hf:hkust-nlp/SimpleRL-Zoo-Data:simplelr_qwen_level3to5/train"  # [V]: MATH levels 3 to 5, about 8.4k
)
BENCHMARKS = ("gsm8k", "math500", "minerva_math", "olympiadbench", "aime24", "amc23")  # [V]: SimpleRL-Zoo's table
STUDENTS = {  # arm -> the traces that it learns from
    "w2sr": "@filter/all.jsonl",
    "w2sr_p": "@filter/correct.jsonl",
    "w2sr_n": "@filter/incorrect.jsonl",
    "non_reasoner_taught": "@non_reasoner_filter/all.jsonl",
}
CLAIMS = {
    "students beat their teacher: W2SR > Reasoner teacher": ("w2sr", "teacher"),
    "incorrect traces help: W2SR-N > base": ("w2sr_n", "base"),
    "a Reasoner teaches better than a Non-Reasoner of its size": ("w2sr", "non_reasoner_taught"),
}


@dataclasses.dataclass(slots=True, kw_only=True)
class PaperExperiment(ExperimentConfig):
    """One student, one teacher: the three variants, the Non-Reasoner's student, the ceiling, all evaluated alike."""

    published: str = opt(help="what verified numbers say of this experiment, for comparison")
    student: str = opt(help="hub id, Hugging Face directory or training workdir")
    reasoner: str = opt(help="the teacher after RL")
    non_reasoner: str = opt(help="the same model before RL")
    published_ceiling: str = opt("", "the student after the family's own RL, for ceiling=published")
    ceiling: str = opt("train", "GRPO here, or the published checkpoint", choices=("train", "published"))
    problems: str = opt(TRAINING_PROBLEMS, "training problems: a hub id, or the path of a local copy")
    benchmarks: tuple[str, ...] = opt(
        tuple(f"bench:{name}" for name in BENCHMARKS), "evaluated on: names of the registry, or paths"
    )
    template: str = opt("qwen-boxed", "prompt of SFT and GRPO")
    teacher_template: str = opt("qwen-boxed", "prompt of the teachers [ours]: which one each was tuned on is not known")
    protocol: str = opt("paper", "of every evaluation, see data/protocols.py")
    teacher_protocol: str = opt("", "of the teacher's, where its prompt is another; empty is the same")

    trace_tokens: int = opt(4096, "longest trace [ours]: what SFT can use", minimum=1)
    trace_temperature: float = opt(1.0, "of the traces [ours]: as SimpleRL evaluates its models", minimum=0.0)
    trace_top_p: float = opt(0.95, "of the traces [ours]", minimum=1e-6, maximum=1.0)

    learning_rate: float = opt(1e-5, "peak of SFT", minimum=0.0)
    epochs: float = opt(5.0, "of SFT", minimum=0.0)
    max_length: int = opt(4096, "tokens of an example, prompt included [2nd]", minimum=8)
    batch_size: int = opt(128, "examples a step [2nd]", minimum=1)
    sft_grad_accum: int = opt(8, "microbatches; follow the memory of the devices", minimum=1)

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

    def nodes(self) -> list[Node]:
        ceiling = "@grpo/export" if self.ceiling == "train" else self.published_ceiling
        models = {"base": self.student, "teacher": self.reasoner}
        models |= {arm: f"@{arm}/export" for arm in STUDENTS} | {"grpo": ceiling}
        nodes = [
            Node(name="traces", stage="distill", config=self._distill(self.reasoner)),
            Node(name="filter", stage="filter", config=self._filter("traces")),
            Node(name="non_reasoner_traces", stage="distill", config=self._distill(self.non_reasoner)),
            Node(name="non_reasoner_filter", stage="filter", config=self._filter("non_reasoner_traces")),
            *(Node(name=arm, stage="sft", config=self._sft(traces)) for arm, traces in STUDENTS.items()),
        ]
        if self.ceiling == "train":
            nodes.append(Node(name="grpo", stage="grpo", config=self._grpo()))
        for arm, model in models.items():
            for number, source in enumerate(self.benchmarks):
                nodes.append(
                    Node(name=f"eval/{arm}/{number}", stage="evaluate", config=self._evaluate(arm, model, source))
                )
        nodes.append(Node(name="report", stage="report", config=self._report(list(models))))
        return nodes

    def _distill(self, teacher: str) -> DistillConfig:
        return DistillConfig(
            model=teacher,
            problems=self.problems,
            template=self.teacher_template,
            sampling=SamplingConfig(
                max_tokens=self.trace_tokens,
                temperature=self.trace_temperature,
                top_p=self.trace_top_p,
                seed=self.seed,
            ),
            engine=self.engine,
            decode=self._decode(),
            mesh=self.mesh,
            price=self.price,
        )

    def _filter(self, traces: str) -> FilterConfig:
        # Contamination is counted and left in: whether the paper removed any is not known.
        return FilterConfig(
            problems=self.problems,
            traces=f"@{traces}/traces.jsonl",
            contamination=self.benchmarks,
            seed=self.seed,
            price=self.price,
        )

    def _sft(self, traces: str) -> SFTConfig:
        """The official recipe [2nd]: all parameters, cosine after a warm-up of a tenth, bf16."""
        return SFTConfig(
            model=self.student,
            data=DataConfig(
                problems=self.problems,
                traces=traces,
                template=self.template,
                max_length=self.max_length,
                batch_size=self.batch_size,
                packing=False,  # [ours]: 128 examples a step, as the batch is counted there, not 128 full rows
                overlong="truncate",  # [2nd]: "cutoff"; what is cut is taught no end
                seed=self.seed,
            ),
            epochs=self.epochs,
            optimizer=OptimizerConfig(learning_rate=self.learning_rate, schedule="cosine", warmup_ratio=0.1),
            train=TrainConfig(dtype=self.dtype, grad_accum=self.sft_grad_accum),
            mesh=self.mesh,
            price=self.price,
        )

    def _grpo(self) -> GRPOConfig:
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
            train=TrainConfig(dtype=self.dtype, grad_accum=self.grpo_grad_accum),
            decode=self._decode(),
            mesh=self.mesh,
            price=self.price,
            seed=self.seed,
        )

    def _evaluate(self, arm: str, model: str, source: str) -> EvaluateConfig:
        return EvaluateConfig(
            model=model,
            problems=source,
            protocol=(self.teacher_protocol if arm == "teacher" else "") or self.protocol,
            sampling=SamplingConfig(seed=self.seed),
            engine=self.engine,
            decode=self._decode(),
            mesh=self.mesh,
            price=self.price,
        )

    def _report(self, arms: list[str]) -> ReportConfig:
        trained = ("grpo",) if self.ceiling == "train" else ()
        made = {"non_reasoner_taught": ("@non_reasoner_traces", "@non_reasoner_filter")}
        routes = {arm: (*made.get(arm, ("@traces", "@filter")), f"@{arm}") for arm in STUDENTS}
        apart = bool(self.teacher_protocol) and self.teacher_protocol != self.protocol
        return ReportConfig(
            title=f"W2SR: {self.student} taught by {self.reasoner}",
            arms={arm: tuple(f"@eval/{arm}/{n}" for n in range(len(self.benchmarks))) for arm in arms},
            baselines=("teacher",) if apart else (),  # it answers another prompt: shown, not compared
            routes=routes | {arm: (f"@{arm}",) for arm in trained},
            teachers={"base": self.student, **dict.fromkeys(STUDENTS, self.reasoner)}
            | {"non_reasoner_taught": self.non_reasoner},
            published=self.published,
            trace_sets=dict(STUDENTS),
            problems=self.problems,
            claims={sentence: pair for sentence, pair in CLAIMS.items() if not (apart and "teacher" in pair)},
            bootstrap=self.bootstrap,
            seed=self.seed,
        )

    def _decode(self) -> DecodeConfig:
        return DecodeConfig(dtype=self.dtype, batch_size=self.decode_batch)


Make = Callable[[str], PaperExperiment]


def experiment(student: str, teacher: str, **values: object) -> PaperExperiment:
    """The experiment of a student (an id) and a teacher (a key of TEACHERS).

    Math-7B has a context of 4,096 tokens: its traces end at 3,072, which leaves 1,024 for the prompt.
    """
    reasoner, non_reasoner = TEACHERS[teacher]
    config = PaperExperiment(student=student, reasoner=reasoner, non_reasoner=non_reasoner)
    if teacher == "Math-7B":
        config.trace_tokens = 3072
    for name, value in values.items():
        setattr(config, name, value)
    return config


def variants(makers: dict[str, Make]) -> tuple[str, ...]:
    """Names STUDENT-from-TEACHER of every pair, for `FILE.py:VARIANT`."""
    return tuple(f"{student}-from-{teacher}".lower() for student in makers for teacher in TEACHERS)


def pick(variant: str | None, makers: dict[str, Make]) -> PaperExperiment:
    """The experiment that a variant names; without one, the first student and the 1.5B teacher.

    Raises:
        ValueError: there is no such variant.
    """
    student, _, teacher = (variant or f"{next(iter(makers))}-from-1.5b").lower().partition("-from-")
    teachers = {name.lower(): name for name in TEACHERS}
    if student not in makers or teacher not in teachers:
        raise ValueError(f"no variant {variant!r}, only STUDENT-from-TEACHER: {', '.join(variants(makers))}")
    return makers[student](teachers[teacher])
