"""Structure against scale: one student taught by Reasoners and Non-Reasoners of every size, in one run."""

import dataclasses
import itertools

from w2sr_jax.core.config import opt
from w2sr_jax.paper.experiment import Claims, Question, SeveralTeachers
from w2sr_jax.paper.models import QWEN_TEACHERS, SIZES, structure_claim


def every_size(
    sizes: tuple[str, ...] = SIZES, kinds: tuple[str, ...] = ("reasoner", "non_reasoner")
) -> tuple[str, ...]:
    """NAME=MODEL of the teachers of these sizes: reasoner_0.5b=..., non_reasoner_0.5b=..., ..."""
    models = {f"{kind}_{size}": getattr(QWEN_TEACHERS[size], kind) for size, kind in itertools.product(sizes, kinds)}
    return tuple(f"{name}={model}" for name, model in models.items())


@dataclasses.dataclass(slots=True, kw_only=True)
class ScaleExperiment(SeveralTeachers):
    """A student of each teacher; names are KIND_SIZE, in the order of their sizes."""

    teachers: tuple[str, ...] = opt(every_size, "each NAME=MODEL, by size; NAME is reasoner_SIZE or non_reasoner_SIZE")

    def question(self) -> Question:
        made, arms = self.alone()
        return Question(
            title=f"Structure against scale: {self.student} taught by {len(arms)} teachers",
            made=made,
            arms=arms,
            claims=self._claims(),
            teachers={f"teacher_{name}": model for name, model in self.by_name().items()},
            name="_scale",
        )

    def _claims(self) -> Claims:
        names = list(self.by_name())
        sizes = list(dict.fromkeys(name.rpartition("_")[2] for name in names))
        claims: Claims = {}
        for small, large in itertools.combinations_with_replacement(sizes, 2):
            pair = (f"reasoner_{small}", f"non_reasoner_{large}")
            if set(pair) <= set(names):
                claims[structure_claim(small, large)] = pair
        for name in (name for name in names if name.startswith("reasoner_")):
            claims[f"the student beats its Reasoner ({name.rpartition('_')[2].upper()})"] = (name, f"teacher_{name}")
        return claims
