"""Does it hold outside mathematics?

    w2sr run --config=configs/experiments/micro_domains.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_domains.py:one --workdir=runs/questions    seed 0 alone

The micro experiment once more on a task without numbers: letters that change places, verified as text. Its base models,
teacher and ceiling are its own, so nothing is shared with micro.py.
"""

from w2sr_jax.micro.questions.experiment import QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, "domains")
