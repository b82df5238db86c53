"""Which traces should be kept? Selections by a score, all of one size, against a random draw of the same traces."""

import dataclasses

from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import Node
from w2sr_jax.core.trace_config import SelectConfig
from w2sr_jax.paper.experiment import Arm, Claims, OneTeacher, Question

Selections = dict[str, tuple[str, SelectConfig]]  # arm -> in words, what is kept
CONTROLS: Selections = {
    "random": ("a random draw", SelectConfig()),
    "gold": ("correct traces", SelectConfig(only_correct=True)),
}
SCORES: dict[str, Selections] = {
    "majority": {"voted": ("majority pseudo-labels", SelectConfig(by="majority", min_agreement=0.5))},
    "surprisal": {
        "surprising": ("traces that surprise the student", SelectConfig(by="surprisal")),
        "unsurprising": ("traces that do not surprise the student", SelectConfig(by="surprisal", keep="lowest")),
    },
    "length": {
        "long": ("long traces", SelectConfig(by="length")),
        "short": ("short traces", SelectConfig(by="length", keep="lowest")),
    },
    "structure": {
        "many_steps": ("traces of many steps", SelectConfig(by="steps")),
        "consistent": ("traces whose equations hold", SelectConfig(by="consistency")),
    },
    "difficulty": {
        "hard": ("correct traces of hard problems", SelectConfig(by="difficulty", only_correct=True)),
        "easy": ("correct traces of easy problems", SelectConfig(by="difficulty", keep="lowest", only_correct=True)),
    },
}


@dataclasses.dataclass(slots=True, kw_only=True)
class FilteringExperiment(OneTeacher):
    """The Reasoner answers each problem several times; every student learns from as many of these traces."""

    scores: tuple[str, ...] = opt(tuple(SCORES), "majority, surprisal, length, structure, difficulty")
    samples: int = opt(4, "traces a problem [ours]", minimum=2)
    size: int = opt(4000, "traces of each student [ours]", minimum=1)

    def check(self) -> None:
        OneTeacher.check(self)
        if not self.scores or set(self.scores) - set(SCORES):
            raise UsageError(f"config.scores: expected some of {', '.join(SCORES)}, got {self.scores}")

    def question(self) -> Question:
        graded = "@sampled_filter/all.jsonl"
        made = self.taught_by(self.reasoner, "sampled_", samples=self.samples)
        if "surprisal" in self.scores:
            made.append(Node(name="surprisal", stage="score", config=self.score(graded)))
        tried = {arm: entry for score in self.scores for arm, entry in SCORES[score].items()}
        arms: dict[str, Arm] = {}
        for arm, (_, select) in (CONTROLS | tried).items():
            scores = "@surprisal/scores.jsonl" if select.by == "surprisal" else ""
            kept = dataclasses.replace(select, size=self.size, scores=scores)
            made.append(self.selected(f"{arm}_traces", graded, kept))
            arms[arm] = Arm(traces=f"@{arm}_traces/traces.jsonl", teacher=self.reasoner)
        claims: Claims = {"correct traces beat a random draw": ("gold", "random")}
        for arm, (words, select) in tried.items():
            control = "gold" if select.only_correct else "random"
            claims[f"{words} beat {CONTROLS[control][0]}"] = (arm, control)
        if "voted" in tried:
            claims["published answers beat majority pseudo-labels"] = ("gold", "voted")
        return Question(
            title=f"Which traces should be kept? {self.student} taught by {self.reasoner}",
            made=made,
            arms=arms,
            claims=claims,
            teachers={"teacher": self.reasoner},
            name="_".join(["", *self.scores]),
        )
