"""The cross-family check: Qwen2.5 teachers, the student Llama-3.1-8B. The way back is in families.py.

    w2sr run --config=configs/paper/llama31.py:8b-from-1.5b --workdir=runs/llama

Variants, overrides and benchmarks are as in configs/paper/qwen25.py; README.md says what chips, hours and USD count.
Nothing in this file has been run at full size.

No number of the paper for this student could be verified. The student is asked with SimpleRL-Zoo's simple prompt
(abel), its teachers with qwen-boxed, so the teacher is shown beside the arms and not compared with them.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import pair, pick_pair


def student_8b(teacher: str = "1.5b", rival: str = "") -> PaperExperiment:
    """Llama-3.1-8B.

    Chips: v5e:4x4 (16); hours: 5.4 SFT + at most 172 GRPO; USD: 104 + at most 3,306
    Compare: base 39.7 13.6 4.8 3.1 0.0 2.5, RL 79.2 23.0 9.6 5.3 0.0 15.0 (SimpleRL-Zoo).
    """
    return pair("8b", teacher, rival)


EXPERIMENTS = {"8b": student_8b}


def get_config(variant: str | None = None) -> PaperExperiment:
    """8b[-from-TEACHER][-vs-TEACHER]; from 1.5b without a teacher."""
    return pick_pair(variant, EXPERIMENTS)
