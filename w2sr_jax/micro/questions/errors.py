"""What do errors in traces cost the student? One kind at a time, in some of the traces or in all of them.

All students learn from as many traces of the same problems: the correct ones of the Reasoner teacher, before errors.
Not every trace can have every error: a step can be dropped where there are two, a product be wrong where there is one.
counts.json of the traces' node says how many were touched.
"""

from __future__ import annotations

from w2sr_jax.core.trace_config import InjectConfig, TransformConfig
from w2sr_jax.micro.experiment import MicroExperiment
from w2sr_jax.micro.questions.base import SHARED, SHARED_TRACES, Asked, Claims, Part, Section, taught, tests
from w2sr_jax.micro.task import MODULUS

RATES = {"slip": (10, 25, 50, 100), "answer": (25, 100), "drop": (25, 100), "shuffle": (25, 100), "rule": (100,)}
WHAT = {
    "slip": "an arithmetic slip, carried on to the answer",
    "answer": "a wrong final answer only",
    "drop": "a dropped step",
    "shuffle": "shuffled steps",
    "rule": "one consistent wrong rule",
}


def question(experiment: MicroExperiment, seed: int) -> Asked:
    """Every kind at its rates, against the same traces without errors."""
    at, parts, traces = f"@seed{seed}", list[Part](), dict[str, str]()
    claims = Claims()
    for kind, rates in RATES.items():
        for rate in rates:
            arm = f"{kind}_{rate}"
            config = TransformConfig(
                what="inject",
                traces=(f"{at}/filter/correct.jsonl",),
                problems=f"{at}/problems/train.jsonl",
                seed=seed,
                inject=InjectConfig(kind=kind, rate=rate / 100, modulus=MODULUS),
            )
            parts.append((f"errors/{arm}_traces", "transform", config))
            traces[arm] = f"errors/{arm}_traces/traces.jsonl"
            share = "every trace that can have it" if rate == 100 else f"{rate} % of the traces"
            claims[f"{WHAT[kind]} in {share} costs accuracy"] = ("w2sr_p", arm)
        claims[f"with {WHAT[kind]} wherever possible, traces still teach"] = (f"{kind}_100", "base")
    claims["wrong answers hurt less than wrong reasoning"] = ("answer_100", "slip_100")
    parts += taught(experiment, seed, "errors", traces)
    arms = SHARED | tests("errors", traces)
    section = Section("errors", "What do errors in traces cost?", arms, claims, SHARED_TRACES | traces)
    return Asked(parts, [section])
