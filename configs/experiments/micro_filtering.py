"""Which traces should be kept?

    w2sr run --config=configs/experiments/micro_filtering.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_filtering.py:one --workdir=runs/questions    seed 0 alone

The Reasoner teacher answers each problem four times. Students learn from as many of these traces, chosen by majority
pseudo-labels (no published answer is read), by how surprising the student finds them, by length, by structure (number
of steps, share of equations that hold), or by the difficulty of their problem, beside a random draw and the correct
ones. Base models, teacher and ceiling are those of micro.py.
"""

from w2sr_jax.micro.questions.experiment import QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, "filtering")
