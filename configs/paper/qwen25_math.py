"""The paper's experiments on the student Qwen2.5-Math-7B, with every teacher.

    w2sr run --config=configs/paper/qwen25_math.py:math-7b-from-1.5b --workdir=runs/math7b

Variants, overrides and benchmarks are as in configs/paper/qwen25.py; README.md says what chips, hours and USD count.
Nothing in this file has been run at full size.

The paper's number to compare with, verified: average Pass@1 43.77 with W2SR-N against 30.71 of the base student. Which
teacher and which benchmarks that average is over could not be verified.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import pair, pick_pair


def student_math_7b(teacher: str = "1.5b", rival: str = "") -> PaperExperiment:
    """Qwen2.5-Math-7B.

    Its context is 4,096 tokens: RL responses end at 3,072 (the default of SimpleRL-Zoo's training script, whose default
    model this is), and evaluation at what the prompt leaves.

    Chips: v5e:4x4 (16); hours: 9.8 SFT + at most 64 GRPO; USD: 189 + at most 1,229
    Compare: average Pass@1 30.71 of the base, 43.77 of W2SR-N (the paper).
    """
    return pair("math-7b", teacher, rival)


EXPERIMENTS = {"math-7b": student_math_7b}


def get_config(variant: str | None = None) -> PaperExperiment:
    """math-7b[-from-TEACHER][-vs-TEACHER]; from 1.5b without a teacher."""
    return pick_pair(variant, EXPERIMENTS)
