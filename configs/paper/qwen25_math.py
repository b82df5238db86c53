"""The paper's experiments on the student Qwen2.5-Math-7B, with every teacher.

    w2sr run --config=configs/paper/qwen25_math.py:math-7b-from-1.5b --workdir=runs/math7b

Variants, overrides and benchmarks are as in configs/paper/qwen25.py. Chips, hours and cost are not stated here:
`w2sr plan` is to compute them. Nothing in this file has been run at full size.

The paper's number to compare with, verified: average Pass@1 43.77 with W2SR-N against 30.71 of the base student. Which
teacher and which benchmarks that average is over could not be verified.
"""

from w2sr_jax.core import paper
from w2sr_jax.core.paper import PaperExperiment


def student_math_7b(teacher: str) -> PaperExperiment:
    """Qwen2.5-Math-7B. Compare: average Pass@1 30.71 of the base, 43.77 of W2SR-N (the paper).

    Its context is 4,096 tokens: RL responses end at 3,072 (the default of SimpleRL-Zoo's training script, whose default
    model this is), and evaluation at what the prompt leaves.
    """
    return paper.experiment(
        "Qwen/Qwen2.5-Math-7B",
        teacher,
        published="the paper: base 30.71, W2SR-N 43.77 (average); "
        "SimpleRL-Zoo: base 65.5 63.6 12.5 25.8 13.3 42.5, RL 90.2 80.2 37.5 39.0 40.0 70.0",
        published_ceiling="hkust-nlp/Qwen-2.5-Math-7B-SimpleRL-Zoo",
        learning_rate=2e-5,  # [2nd]
        epochs=10.0,  # [2nd]
        grpo_tokens=3072,  # [V]
    )


MAKERS = {"math-7b": student_math_7b}


def get_config(variant: str | None = None) -> PaperExperiment:
    """math-7b-from-TEACHER; from 1.5b without a variant."""
    return paper.pick(variant, MAKERS)
