"""What must a student be shown? The answer alone, the reasoning without it, written solutions, or its own traces.

All students learn from as many traces. Those of the Reasoner teacher are its correct ones; written solutions are
careful answers to training problems, easy or not; the student's own traces are those of the base model that is made to
begin in worked mode, the correct ones or all of them.
"""

from __future__ import annotations

from w2sr_jax.core.trace_config import SelectConfig, TransformConfig
from w2sr_jax.micro.config import MicroConfig
from w2sr_jax.micro.experiment import MicroExperiment
from w2sr_jax.micro.questions.base import SHARED, SHARED_TRACES, Asked, Claims, Part, Section, taught, tests
from w2sr_jax.micro.task import WORK

CLAIMS: Claims = {
    "reasoning helps: whole correct traces beat their answers alone": ("w2sr_p", "answer_only"),
    "answers alone still teach": ("answer_only", "base"),
    "the final answer helps: whole traces beat reasoning alone": ("w2sr_p", "reasoning_only"),
    "reasoning alone teaches": ("reasoning_only", "base"),
    "written solutions beat the Reasoner's correct traces": ("human", "w2sr_p"),
    "a weak Reasoner's correct traces beat the student's own correct ones": ("w2sr_p", "self_correct"),
    "self-distillation of correct traces teaches": ("self_correct", "base"),
    "self-distillation of all traces teaches": ("self_all", "base"),
    "self-distillation beats its free baseline, worked mode forced": ("self_correct", "forced"),
}


def question(experiment: MicroExperiment, seed: int) -> Asked:
    """Each kind of supervision, against the teacher's correct traces."""
    at, correct = f"@seed{seed}", "filter/correct.jsonl"
    parts: list[Part] = []
    for kind in ("answer_only", "reasoning_only"):
        config = TransformConfig(what="supervise", supervise=kind, traces=(f"{at}/{correct}",))
        parts.append((f"supervision/{kind}_traces", "transform", config))
    solutions = MicroConfig(what="solutions", problems=f"{at}/problems/train.jsonl")
    drawn = TransformConfig(
        what="select",
        traces=(f"{at}/supervision/solutions/traces.jsonl",),
        select=SelectConfig(size=experiment.traces),
        seed=seed,
    )
    parts += [
        ("supervision/solutions", "micro", solutions),
        ("supervision/human_traces", "transform", drawn),
        ("supervision/self_traces", "distill", experiment.distill(at, f"{at}/strong/export", prefix=WORK)),
        ("supervision/self_filter", "filter", experiment.filter(seed, at, "supervision/self_traces")),
    ]
    traces = {
        "answer_only": "supervision/answer_only_traces/traces.jsonl",
        "reasoning_only": "supervision/reasoning_only_traces/traces.jsonl",
        "human": "supervision/human_traces/traces.jsonl",
        "self_correct": "supervision/self_filter/correct.jsonl",
        "self_all": "supervision/self_filter/all.jsonl",
    }
    parts += taught(experiment, seed, "supervision", traces)
    arms = SHARED | tests("supervision", traces)
    return Asked(parts, [Section("supervision", "What must a student be shown?", arms, CLAIMS, SHARED_TRACES | traces)])
