"""What do errors in traces cost the student?

    w2sr run --config=configs/experiments/micro_errors.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_errors.py:one --workdir=runs/questions    seed 0 alone

All students learn from as many correct traces of the Reasoner teacher, in some or all of which one kind of error was
put: an arithmetic slip that is carried on, a wrong final answer only, a dropped step, shuffled steps, or the rule that
every product is one more than it is. Base models, teacher and ceiling are those of micro.py; runs of the other
micro_*.py in the same workdir share them.

Expected, greedy test Pass@1, mean of three seeds (README, "Open questions"): without errors .78; slips in 10, 25, 50 %
and in all .78, .75, .69, .45; wrong answers in 25 % and in all .76, .21; dropped steps .57, .18; shuffled ones .61
and .32; the wrong rule .65.
"""

from w2sr_jax.micro.questions.experiment import QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, "errors")
