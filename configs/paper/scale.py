"""Structure against scale: does a small Reasoner teach better than a large Non-Reasoner?

    w2sr run --config=configs/paper/scale.py:every_size --workdir=runs/7b
    w2sr run --config=configs/paper/scale.py:every_size/14b --workdir=runs/14b
    w2sr run --config=configs/paper/scale.py:every_size --workdir=runs/7b --config.teachers="\\
        ('reasoner_1.5b=hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo','non_reasoner_32b=/models/Qwen2.5-32B')"

One student of each teacher: Reasoners and Non-Reasoners of 0.5B, 1.5B, 7B, 14B and 32B, all traces. The report draws
accuracy against the size of the teacher. A single pair of two sizes is a variant of qwen25.py (7b-from-1.5b-vs-32b).
The variant names the student: 7b, 14b, 32b, math-7b, 8b. The ceiling is the published checkpoint
(--config.ceiling=train for GRPO here). README.md says what chips, hours and USD count. Nothing in this file has been
run at full size.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import pick, with_teachers
from w2sr_jax.paper.scale import ScaleExperiment


def every_size(student: str = "7b") -> PaperExperiment:
    """Ten teachers of one student.

    Chips: v5e:4x4 (16); hours: 12.3 SFT; USD: 236
    Compare: teachers 4.7 times smaller and 31.5 % weaker lift their students by 56.25 % (the paper, as a whole); no
    cell of its tables is verified.
    """
    return with_teachers(ScaleExperiment, student)


EXPERIMENTS = {"every_size": every_size}


def get_config(variant: str | None = None) -> PaperExperiment:
    """every_size[/STUDENT]; the student is 7b without one."""
    return pick(variant, EXPERIMENTS)
