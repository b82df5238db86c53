"""Every open question on the model organism, in one report.

    w2sr run --config=configs/experiments/micro_all.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_all.py:one --workdir=runs/questions    seed 0 alone

Errors in traces, supervision, teacher ensembles, filtering, model families, another domain: the other micro_*.py are
parts of this one, and their runs in the same workdir are reused. What each asks stands there.
"""

from w2sr_jax.micro.questions.experiment import QUESTIONS, QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, *QUESTIONS)
