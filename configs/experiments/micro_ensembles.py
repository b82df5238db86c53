"""Do several weak teachers teach better than one?

    w2sr run --config=configs/experiments/micro_ensembles.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_ensembles.py:one --workdir=runs/questions    seed 0 alone

Three Reasoner teachers answer the same problems; for each problem one of their traces is taken: any, one of the
majority, one as likely as its answer has votes, or the one with the fewest hygiene flags. Students of each teacher
alone stand beside. Base models, the first teacher and the ceiling are those of micro.py.
"""

from w2sr_jax.micro.questions.experiment import QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, "ensembles")
