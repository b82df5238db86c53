"""What must a student be shown? The answer alone, the reasoning without it, human solutions, or its own traces."""

import dataclasses

from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import Node
from w2sr_jax.core.trace_config import SelectConfig, TransformConfig
from w2sr_jax.paper.experiment import Arm, Claims, OneTeacher, Question

SUPERVISION = ("answer_only", "reasoning_only", "human", "self")
CLAIMS: dict[str, Claims] = {
    "answer_only": {
        "reasoning helps: whole correct traces beat their answers alone": ("matched", "answer_only"),
        "answers alone teach": ("answer_only", "base"),
    },
    "reasoning_only": {
        "the final answer helps: whole traces beat reasoning alone": ("matched", "reasoning_only"),
        "reasoning alone teaches": ("reasoning_only", "base"),
    },
    "human": {"human solutions beat the Reasoner's correct traces": ("human", "matched")},
    "self": {
        "a weak Reasoner's correct traces beat the student's own correct ones": ("matched", "self_correct"),
        "self-distillation of correct traces teaches": ("self_correct", "base"),
        "self-distillation of all traces teaches": ("self_all", "base"),
    },
}


@dataclasses.dataclass(slots=True, kw_only=True)
class SupervisionExperiment(OneTeacher):
    """Students of as many traces each, against so many correct ones of the Reasoner (arm matched)."""

    kinds: tuple[str, ...] = opt(SUPERVISION, "answer_only, reasoning_only, human, self")
    size: int = opt(4000, "traces of each student [ours], at most; 0 is all, which are not equally many", minimum=0)
    solutions: str = opt(
        "hf:DigitalLearningGmbH/MATH-lighteval:data/train",
        "human: problems with worked solutions, see data/solutions.py",
    )

    def check(self) -> None:
        OneTeacher.check(self)
        if not self.kinds or set(self.kinds) - set(SUPERVISION):
            raise UsageError(f"config.kinds: expected some of {', '.join(SUPERVISION)}, got {self.kinds}")

    def question(self) -> Question:
        matched = "@matched_traces/traces.jsonl"
        made = [*self.taught_by(self.reasoner), self._drawn("matched", "@filter/correct.jsonl")]
        arms = {"matched": Arm(traces=matched, teacher=self.reasoner)}
        for kind in self.kinds:
            if kind == "self":
                made += self.taught_by(self.student, "self_", template=self.template)
                for subset in ("correct", "all"):
                    made.append(self._drawn(f"self_{subset}", f"@self_filter/{subset}.jsonl"))
                    arms[f"self_{subset}"] = Arm(traces=f"@self_{subset}_traces/traces.jsonl", teacher=self.student)
            elif kind == "human":
                made.append(self._supervised("solutions", problems=self.solutions))
                made.append(self._drawn("human", "@solutions_traces/traces.jsonl"))
                arms["human"] = Arm(traces="@human_traces/traces.jsonl", problems=self.solutions)
            else:
                made.append(self._supervised(kind, traces=(matched,)))
                arms[kind] = Arm(traces=f"@{kind}_traces/traces.jsonl", teacher=self.reasoner)
        return Question(
            title=f"What must a student be shown? {self.student} taught by {self.reasoner}",
            made=made,
            arms=arms,
            claims={sentence: pair for kind in self.kinds for sentence, pair in CLAIMS[kind].items()},
            teachers={"teacher": self.reasoner},
            name="_".join(["", *self.kinds]),
        )

    def _drawn(self, name: str, traces: str) -> Node:
        return self.selected(f"{name}_traces", traces, SelectConfig(size=self.size))

    def _supervised(self, kind: str, traces: tuple[str, ...] = (), problems: str = "") -> Node:
        config = TransformConfig(
            what="supervise", supervise=kind, traces=traces, problems=problems, seed=self.seed, price=self.price
        )
        return Node(name=f"{kind}_traces", stage="transform", config=config)
