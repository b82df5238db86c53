"""What do errors in traces cost the student? Kinds of them at several rates, against the same traces without errors."""

import dataclasses

from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import Node
from w2sr_jax.core.trace_config import TRACE_ERRORS, InjectConfig, TransformConfig
from w2sr_jax.paper.experiment import Arm, Claims, OneTeacher, Question

WHAT = {
    "slip": "an arithmetic slip",
    "answer": "a wrong final answer only",
    "drop": "a dropped step",
    "shuffle": "shuffled steps",
    "rule": "one consistent wrong rule",
}


@dataclasses.dataclass(slots=True, kw_only=True)
class ErrorsExperiment(OneTeacher):
    """All students learn from the Reasoner's correct traces (arm w2sr_p), KIND_RATE after errors were put in."""

    kinds: tuple[str, ...] = opt(TRACE_ERRORS, "what goes wrong, see traces/errors.py")
    rates: tuple[float, ...] = opt((0.25, 1.0), "shares of the traces that get one")
    carry: bool = opt(True, "slip, rule: what follows goes on from the wrong value")
    error_seed: int = opt(0, "of which traces get one, and where", minimum=0)

    def check(self) -> None:
        OneTeacher.check(self)
        if unknown := set(self.kinds) - set(TRACE_ERRORS):
            raise UsageError(f"config.kinds: {min(unknown)!r} is none of {', '.join(TRACE_ERRORS)}")
        if not self.kinds or not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise UsageError(f"config.kinds, config.rates: at least one of each, rates in (0, 1], got {self.rates}")

    def question(self) -> Question:
        made = self.taught_by(self.reasoner)
        arms = {"w2sr_p": Arm(traces="@filter/correct.jsonl", teacher=self.reasoner)}
        claims: Claims = {}
        for kind in self.kinds:
            for rate in self.rates:
                arm = f"{kind}_{100 * rate:g}"
                made.append(Node(name=f"{arm}_traces", stage="transform", config=self._inject(kind, rate)))
                arms[arm] = Arm(traces=f"@{arm}_traces/traces.jsonl", teacher=self.reasoner)
                claims[f"{WHAT[kind]} in {100 * rate:g} % of the traces costs accuracy"] = ("w2sr_p", arm)
                claims[f"with {WHAT[kind]} in {100 * rate:g} %, traces still teach"] = (arm, "base")
        return Question(
            title=f"What do errors in traces cost? {self.student} taught by {self.reasoner}",
            made=made,
            arms=arms,
            claims=claims,
            teachers={"teacher": self.reasoner},
            name="_".join(["", *self.kinds]),
        )

    def _inject(self, kind: str, rate: float) -> TransformConfig:
        return TransformConfig(
            what="inject",
            traces=("@filter/correct.jsonl",),
            problems=self.problems,
            seed=self.error_seed,
            inject=InjectConfig(kind=kind, rate=rate, carry=self.carry),
            price=self.price,
        )
