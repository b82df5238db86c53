"""Does it hold outside mathematics? The micro experiment once more on letters that change places, verified as text."""

from __future__ import annotations

import dataclasses

from w2sr_jax.micro.config import MicroConfig
from w2sr_jax.micro.experiment import MicroExperiment
from w2sr_jax.micro.questions.base import Asked, Claims, Part, Section
from w2sr_jax.micro.task import WORK

CLAIMS: Claims = {
    "letters: students beat their teacher": ("w2sr", "teacher"),
    "letters: correct traces beat all traces": ("w2sr_p", "w2sr"),
    "letters: incorrect traces help": ("w2sr_n", "base"),
    "letters: RL earns more than the mode": ("grpo", "forced"),
}
TRAINED = {"w2sr": "all", "w2sr_p": "correct", "w2sr_n": "incorrect"}


def question(experiment: MicroExperiment, seed: int) -> Asked:
    """Problems, base models, teacher, students and ceiling of the other domain."""
    at = f"@seed{seed}/domains"
    weak = experiment.base(seed, at, 30_000 + 2 * seed, experiment.weak, experiment.weak_pretraining)
    strong = experiment.base(seed, at, 30_001 + 2 * seed, experiment.strong, experiment.strong_pretraining)
    problems = MicroConfig(what="problems", seed=seed, splits=experiment.splits)
    parts: list[Part] = [
        ("domains/problems", "micro", dataclasses.replace(problems, domain="letters")),
        ("domains/weak", "micro", dataclasses.replace(weak, domain="letters")),
        ("domains/strong", "micro", dataclasses.replace(strong, domain="letters")),
        ("domains/teacher", "grpo", experiment.grpo(seed, at, f"{at}/weak/export", experiment.teacher)),
        ("domains/traces", "distill", experiment.distill(at, f"{at}/teacher/export")),
        ("domains/filter", "filter", experiment.filter(seed, at, "traces")),
        ("domains/grpo", "grpo", experiment.grpo(seed, at, f"{at}/strong/export", experiment.ceiling)),
    ]
    for arm, subset in TRAINED.items():
        student = experiment.student(seed, at, f"{at}/filter/{subset}.jsonl")
        parts.append((f"domains/{arm}", "sft", student))
    models = {"base": "strong", "forced": "strong", "teacher": "teacher", **{a: a for a in TRAINED}, "grpo": "grpo"}
    for arm, node in models.items():
        evaluation = experiment.evaluate(at, f"{at}/{node}/export", WORK if arm == "forced" else "")
        parts.append((f"domains/{arm}_test", "evaluate", evaluation))
    arms = {arm: f"domains/{arm}_test" for arm in models}
    title = "Does it hold outside mathematics? Letters that change places"
    traces = {arm: f"domains/filter/{subset}.jsonl" for arm, subset in TRAINED.items()}
    return Asked(parts, [Section("domains", title, arms, CLAIMS, traces, problems="domains/problems/train.jsonl")])
