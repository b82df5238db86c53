"""Do several weak teachers teach better than one? Mixed, by majority, weighted by agreement, or the healthiest trace.

Three Reasoner teachers: that of the experiment and two more, with weights, text and GRPO of their own. Every student
learns from as many traces, of the same problems.
"""

from __future__ import annotations

from w2sr_jax.core.trace_config import ENSEMBLES, TransformConfig
from w2sr_jax.micro.experiment import MicroExperiment
from w2sr_jax.micro.questions.base import SHARED, SHARED_TRACES, Asked, Claims, Part, Section, taught, tests

TEACHERS = 3
CLAIMS: Claims = {
    "three teachers mixed beat the first": ("mix", "w2sr"),
    "three teachers mixed beat the second": ("mix", "taught_2"),
    "three teachers mixed beat the third": ("mix", "taught_3"),
    "a majority vote beats mixing": ("majority", "mix"),
    "agreement-weighted choice beats mixing": ("agreement", "mix"),
    "a majority vote beats agreement-weighted choice": ("majority", "agreement"),
    "the healthiest trace beats mixing": ("hygiene", "mix"),
    "a majority vote, which sees no answers, beats one teacher's correct traces": ("majority", "w2sr_p"),
}


def question(experiment: MicroExperiment, seed: int) -> Asked:
    """The ensembles, and students of each teacher alone."""
    at = f"@seed{seed}"
    parts: list[Part] = []
    traces: dict[str, str] = {}
    files, arms = [f"{at}/traces/traces.jsonl"], dict(SHARED)
    for number in range(2, TEACHERS + 1):
        here = f"ensembles/{number}"
        stream = 10_000 + 10 * seed + number  # far from those of the base models
        base = experiment.base(seed, at, stream, experiment.weak, experiment.weak_pretraining)
        policy = experiment.grpo(seed, at, f"{at}/{here}/weak/export", experiment.teacher)
        parts += [
            (f"{here}/weak", "micro", base),
            (f"{here}/teacher", "grpo", policy),
            (f"{here}/teacher_test", "evaluate", experiment.evaluate(at, f"{at}/{here}/teacher/export")),
            (f"{here}/traces", "distill", experiment.distill(at, f"{at}/{here}/teacher/export")),
            (f"{here}/filter", "filter", experiment.filter(seed, at, f"{here}/traces")),
        ]
        files.append(f"{at}/{here}/traces/traces.jsonl")
        arms[f"teacher_{number}"] = f"{here}/teacher_test"
        traces[f"taught_{number}"] = f"{here}/filter/all.jsonl"
    for how in ENSEMBLES:
        config = TransformConfig(what="ensemble", ensemble=how, traces=tuple(files), seed=seed)
        parts.append((f"ensembles/{how}_traces", "transform", config))
        parts.append((f"ensembles/{how}_filter", "filter", experiment.filter(seed, at, f"ensembles/{how}_traces")))
        traces[how] = f"ensembles/{how}_filter/all.jsonl"
    parts += taught(experiment, seed, "ensembles", traces)
    arms |= tests("ensembles", traces)
    return Asked(
        parts,
        [Section("ensembles", "Do several weak teachers teach better than one?", arms, CLAIMS, SHARED_TRACES | traces)],
    )
