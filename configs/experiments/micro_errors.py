"""What do errors in traces cost the student?

    w2sr run --config=configs/experiments/micro_errors.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_errors.py:one --workdir=runs/questions    seed 0 alone

All students learn from as many correct traces of the Reasoner teacher, in some or all of which one kind of error was
put: an arithmetic slip that is carried on, a wrong final answer only, a dropped step, shuffled steps, or the rule that
every product is one more than it is. Base models, teacher and ceiling are those of micro.py; runs of the other
micro_*.py in the same workdir share them.

What came out, with intervals, stands in configs/experiments/README.md.
"""

from w2sr_jax.micro.questions.experiment import QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, "errors")
