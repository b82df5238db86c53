"""Do several weak teachers teach better than one? Every student learns from one trace a problem, whoever wrote it."""

import dataclasses

from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import Node
from w2sr_jax.core.trace_config import ENSEMBLES, TransformConfig
from w2sr_jax.paper.experiment import Arm, Claims, Question, SeveralTeachers
from w2sr_jax.paper.scale import every_size

TEACHERS = every_size(sizes=("0.5b", "1.5b", "7b"), kinds=("reasoner",))
WHAT = {
    "mix": "teachers mixed",
    "majority": "a majority vote of the teachers",
    "agreement": "agreement-weighted choice among the teachers",
    "hygiene": "the healthiest of the teachers' traces",
}


@dataclasses.dataclass(slots=True, kw_only=True)
class EnsemblesExperiment(SeveralTeachers):
    """Ensembles against each of their teachers alone."""

    teachers: tuple[str, ...] = opt(TEACHERS, "each NAME=MODEL")
    hows: tuple[str, ...] = opt(ENSEMBLES, "how one trace of several is taken, see traces/ensemble.py")

    def check(self) -> None:
        SeveralTeachers.check(self)
        if not self.hows or set(self.hows) - set(ENSEMBLES):
            raise UsageError(f"config.hows: expected some of {', '.join(ENSEMBLES)}, got {self.hows}")

    def question(self) -> Question:
        made, arms = self.alone()
        claims: Claims = {}
        for how in self.hows:
            arm = f"ensemble_{how}"
            chosen = TransformConfig(
                what="ensemble",
                ensemble=how,
                traces=tuple(f"@{name}_traces/traces.jsonl" for name in self.by_name()),
                seed=self.seed,
                price=self.price,
            )
            made.append(Node(name=f"{arm}_traces", stage="transform", config=chosen))
            made.append(Node(name=f"{arm}_filter", stage="filter", config=self.filter(f"@{arm}_traces/traces.jsonl")))
            arms[arm] = Arm(traces=f"@{arm}_filter/all.jsonl")
            claims |= {f"{WHAT[how]}: better than {name} alone": (arm, name) for name in self.by_name()}
            if how != "mix" and "mix" in self.hows:
                claims[f"{WHAT[how]}: better than mixing"] = (arm, "ensemble_mix")
        return Question(
            title=f"Do several weak teachers teach better than one? {self.student}",
            made=made,
            arms=arms,
            claims=claims,
            teachers={f"teacher_{name}": model for name, model in self.by_name().items()},
            name="_".join(["_ensemble", *self.hows]),
        )
