"""What must a student be shown?

    w2sr run --config=configs/experiments/micro_supervision.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_supervision.py:one --workdir=runs/questions    seed 0 alone

All students learn from as many traces: whole correct ones of the Reasoner teacher, their final answers alone, their
reasoning without the answer, careful written solutions, or the student's own traces from the worked mode that it is
made to begin in (self-distillation; correct ones, and all). Base models, teacher and ceiling are those of micro.py.
"""

from w2sr_jax.micro.questions.experiment import QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, "supervision")
