"""The paper's experiment: one student, one Reasoner, and beside it a Non-Reasoner of the same size or another."""

import dataclasses

from w2sr_jax.core.config import opt
from w2sr_jax.paper.experiment import Arm, OneTeacher, Question

SAME_SIZE = "a Reasoner teaches better than a Non-Reasoner of its size"


@dataclasses.dataclass(slots=True, kw_only=True)
class PairExperiment(OneTeacher):
    """The three variants, the Non-Reasoner's student, the ceiling."""

    non_reasoner: str = opt(help="a model before RL, the second teacher")
    structure_claim: str = opt(SAME_SIZE, "what is claimed of the two teachers")

    def question(self) -> Question:
        subsets = {"w2sr": "all", "w2sr_p": "correct", "w2sr_n": "incorrect"}
        arms = {arm: Arm(traces=f"@filter/{subset}.jsonl", teacher=self.reasoner) for arm, subset in subsets.items()}
        arms["non_reasoner_taught"] = Arm(traces="@non_reasoner_filter/all.jsonl", teacher=self.non_reasoner)
        return Question(
            title=f"W2SR: {self.student} taught by {self.reasoner}",
            made=[*self.taught_by(self.reasoner), *self.taught_by(self.non_reasoner, "non_reasoner_")],
            arms=arms,
            teachers={"teacher": self.reasoner},
            claims={
                "students beat their teacher: W2SR > Reasoner teacher": ("w2sr", "teacher"),
                "incorrect traces help: W2SR-N > base": ("w2sr_n", "base"),
                self.structure_claim: ("w2sr", "non_reasoner_taught"),
            },
        )
