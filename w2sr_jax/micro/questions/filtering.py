"""Which traces should be kept? By votes instead of answers, by surprise, length, structure, or difficulty.

The Reasoner teacher answers each problem four times. Every student learns from as many of these traces.
"""

from __future__ import annotations

import dataclasses

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.trace_config import ScoreConfig, SelectConfig, TransformConfig
from w2sr_jax.micro.experiment import MicroExperiment, one_device
from w2sr_jax.micro.questions.base import SHARED, SHARED_TRACES, Asked, Claims, Part, Section, taught, tests
from w2sr_jax.micro.task import MODULUS

SAMPLES = 4
SELECTIONS = {
    "random": SelectConfig(),
    "gold": SelectConfig(only_correct=True),
    "majority": SelectConfig(by="majority", min_agreement=0.5),
    "surprising": SelectConfig(by="surprisal", keep="highest"),
    "unsurprising": SelectConfig(by="surprisal", keep="lowest"),
    "long": SelectConfig(by="length", keep="highest"),
    "short": SelectConfig(by="length", keep="lowest"),
    "many_steps": SelectConfig(by="steps", keep="highest"),
    "consistent": SelectConfig(by="consistency", keep="highest", modulus=MODULUS),
    "hard": SelectConfig(by="difficulty", keep="highest", only_correct=True),
    "easy": SelectConfig(by="difficulty", keep="lowest", only_correct=True),
}
CLAIMS: Claims = {
    "correct traces beat a random draw": ("gold", "random"),
    "majority pseudo-labels beat a random draw": ("majority", "random"),
    "published answers beat majority pseudo-labels": ("gold", "majority"),
    "unsurprising traces beat a random draw": ("unsurprising", "random"),
    "surprising traces beat a random draw": ("surprising", "random"),
    "short traces beat a random draw": ("short", "random"),
    "long traces beat a random draw": ("long", "random"),
    "traces of many steps beat a random draw": ("many_steps", "random"),
    "traces whose equations hold beat a random draw": ("consistent", "random"),
    "correct traces of hard problems beat correct ones of any": ("hard", "gold"),
    "correct traces of easy problems beat correct ones of any": ("easy", "gold"),
}


def question(experiment: MicroExperiment, seed: int) -> Asked:
    """The selections, against a random draw of the same traces."""
    at = f"@seed{seed}"
    graded = f"{at}/filtering/graded/all.jsonl"
    teacher = f"{at}/teacher/export"
    data = DataConfig(
        problems=f"{at}/problems/train.jsonl", traces=graded, template="plain", max_length=64, batch_size=64
    )
    score = ScoreConfig(model=f"{at}/strong/export", data=data, dtype="float32", loss_chunk=64, mesh=one_device())
    parts: list[Part] = [
        ("filtering/traces", "distill", experiment.distill(at, teacher, samples=SAMPLES, seed=seed)),
        ("filtering/graded", "filter", experiment.filter(seed, at, "filtering/traces", limit=0)),
        ("filtering/surprisal", "score", score),
    ]
    traces = {}
    for name, selection in SELECTIONS.items():
        scores = f"{at}/filtering/surprisal/scores.jsonl" if selection.by == "surprisal" else ""
        config = TransformConfig(
            what="select",
            traces=(graded,),
            select=dataclasses.replace(selection, size=experiment.traces, scores=scores),
            seed=seed,
        )
        parts.append((f"filtering/{name}_traces", "transform", config))
        traces[name] = f"filtering/{name}_traces/traces.jsonl"
    parts += taught(experiment, seed, "filtering", traces)
    arms = SHARED | tests("filtering", traces)
    return Asked(parts, [Section("filtering", "Which traces should be kept?", arms, CLAIMS, SHARED_TRACES | traces)])
