"""The paper's experiments on Qwen2.5 students of 7B, 14B and 32B, with every teacher.

    w2sr run --config=configs/paper/qwen25.py:7b-from-1.5b --workdir=runs/7b
    w2sr run --config=configs/paper/qwen25.py:7b-from-1.5b-vs-32b --workdir=runs/7b-vs-32b
    w2sr run --config=configs/paper/qwen25.py:7b-from-1.5b --workdir=runs/7b \\
        --config.student=/models/Qwen2.5-7B --config.problems=/data/level3to5.jsonl --config.ceiling=published

A variant is STUDENT[-from-TEACHER], from 1.5b without a teacher; teachers are 0.5b, 1.5b, 7b, 14b, 32b and math-7b,
each as the Reasoner (the checkpoint of SimpleRL-Zoo) and as the Non-Reasoner (the plain model). -vs-TEACHER takes a
Non-Reasoner of another size: a small Reasoner against a large Non-Reasoner. Models and training problems are named by
hub id and can be paths; benchmarks are found through W2SR_BENCHMARKS. Chips, hours and USD stand beside each
experiment; README.md says what they count. Nothing in this file has been run at full size.

Verified numbers of the paper as a whole: about 94 % of RL's gains are recovered; teachers that are 4.7 times smaller
and 31.5 % weaker lift their students by 56.25 %; W2SR-P takes 25 times less training time than RL. No cell of its
tables for these students could be verified; what can be compared is SimpleRL-Zoo's published base and RL rows, given
in the order GSM8K, MATH500, Minerva, OlympiadBench, AIME24 (one sample), AMC23.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import pair, pick_pair


def student_7b(teacher: str = "1.5b", rival: str = "") -> PaperExperiment:
    """Qwen2.5-7B.

    Chips: v5e:4x4 (16); hours: 4.9 SFT + at most 154 GRPO; USD: 94 + at most 2,955
    Compare: base 88.2 64.6 25.7 30.1 3.3 30.0, RL 91.7 78.2 38.6 40.4 20.0 62.5 (SimpleRL-Zoo).
    """
    return pair("7b", teacher, rival)


def student_14b(teacher: str = "1.5b", rival: str = "") -> PaperExperiment:
    """Qwen2.5-14B.

    Chips: v5p:2x2x2 (8); hours: 11.3 SFT + at most 358 GRPO; USD: 380 + at most 12,043
    Compare: base 91.6 65.4 24.3 33.5 6.7 37.5, RL 94.4 80.2 40.4 44.9 23.3 57.6 (SimpleRL-Zoo).
    """
    return pair("14b", teacher, rival)


def student_32b(teacher: str = "1.5b", rival: str = "") -> PaperExperiment:
    """Qwen2.5-32B.

    Chips: v5p:2x4x4 (32); hours: 5.8 SFT + at most 177 GRPO; USD: 774 + at most 23,791
    Compare: base 92.9 68.6 27.9 31.1 10.0 45.0, RL 95.9 82.4 42.6 46.4 36.7 67.5 (SimpleRL-Zoo).
    """
    return pair("32b", teacher, rival)


EXPERIMENTS = {"7b": student_7b, "14b": student_14b, "32b": student_32b}


def get_config(variant: str | None = None) -> PaperExperiment:
    """STUDENT[-from-TEACHER][-vs-TEACHER]; 7b-from-1.5b without a variant."""
    return pick_pair(variant, EXPERIMENTS)
