"""What must a student be shown? The answer alone, the reasoning without it, human solutions, or its own traces.

    w2sr run --config=configs/paper/supervision.py:answer_only --workdir=runs/7b
    w2sr run --config=configs/paper/supervision.py:human --workdir=runs/7b --config.solutions=/data/math/train.jsonl

Every student learns from --config.size traces, against so many of the Reasoner's correct ones (arm matched); where
there are fewer, counts.json of the traces' node says so.

A variant is NAME[/STUDENT-from-TEACHER], students and teachers as in qwen25.py; without them it is 7b-from-1.5b. The
ceiling is the published checkpoint (--config.ceiling=train for GRPO here). All variants of one pair may share a
workdir with each other and with qwen25.py: what they have in common is made once. README.md says what chips, hours and
USD count. Nothing in this file has been run at full size, and no published number of it is verified.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import from_reasoner, pick
from w2sr_jax.paper.supervision import SupervisionExperiment


def answer_only(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """The final answer of each trace, without its reasoning.

    Chips: v5e:4x4 (16); hours: 1.2 SFT; USD: 22
    Compare: no published number is verified.
    """
    return from_reasoner(SupervisionExperiment, student, teacher, kinds=("answer_only",), ceiling="published")


def reasoning_only(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """The reasoning of each trace, without the final answer.

    Chips: v5e:4x4 (16); hours: 1.2 SFT; USD: 22
    Compare: no published number is verified.
    """
    return from_reasoner(SupervisionExperiment, student, teacher, kinds=("reasoning_only",), ceiling="published")


def human(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """The worked solutions of MATH's training split, whose problems are not quite those of the traces.

    Chips: v5e:4x4 (16); hours: 1.2 SFT; USD: 22
    Compare: no published number is verified.
    """
    return from_reasoner(SupervisionExperiment, student, teacher, kinds=("human",), ceiling="published")


def self_distillation(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """The student's own traces, the correct ones and all of them.

    Chips: v5e:4x4 (16); hours: 1.8 SFT; USD: 34
    Compare: no published number is verified.
    """
    return from_reasoner(SupervisionExperiment, student, teacher, kinds=("self",), ceiling="published")


def every_kind(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """All of these in one report.

    Chips: v5e:4x4 (16); hours: 3.5 SFT; USD: 68
    Compare: no published number is verified.
    """
    return from_reasoner(SupervisionExperiment, student, teacher, ceiling="published")


EXPERIMENTS = {
    "answer_only": answer_only,
    "reasoning_only": reasoning_only,
    "human": human,
    "self_distillation": self_distillation,
    "every_kind": every_kind,
}


def get_config(variant: str | None = None) -> PaperExperiment:
    """NAME[/STUDENT-from-TEACHER]; answer_only without a variant."""
    return pick(variant, EXPERIMENTS)
