"""What do errors in traces cost the student?

    w2sr run --config=configs/paper/errors.py:slip --workdir=runs/7b --config.rates="(0.1,0.5)" --config.error_seed=1
    w2sr run --config=configs/paper/errors.py:every_kind/14b-from-7b --workdir=runs/14b

All students learn from the Reasoner's correct traces: as they are, and with one kind of error in a quarter and in all
of them (--config.rates, of the traces that can have it; counts.json says how many were touched). Each changed trace
says what was done to it.

A variant is NAME[/STUDENT-from-TEACHER], students and teachers as in qwen25.py; without them it is 7b-from-1.5b. The
ceiling is the published checkpoint (--config.ceiling=train for GRPO here). All variants of one pair may share a
workdir with each other and with qwen25.py: what they have in common is made once. README.md says what chips, hours and
USD count. Nothing in this file has been run at full size, and no published number of it is verified.
"""

from w2sr_jax.paper.errors import ErrorsExperiment
from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import from_reasoner, pick


def slip(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """An arithmetic slip, carried on to the answer (--config.carry=False: only that value is wrong).

    Chips: v5e:4x4 (16); hours: 3.7 SFT; USD: 71
    Compare: no published number is verified.
    """
    return from_reasoner(ErrorsExperiment, student, teacher, kinds=("slip",), ceiling="published")


def answer(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """A wrong final answer after right reasoning.

    Chips: v5e:4x4 (16); hours: 3.7 SFT; USD: 71
    Compare: no published number is verified.
    """
    return from_reasoner(ErrorsExperiment, student, teacher, kinds=("answer",), ceiling="published")


def drop(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """A dropped step.

    Chips: v5e:4x4 (16); hours: 3.7 SFT; USD: 71
    Compare: no published number is verified.
    """
    return from_reasoner(ErrorsExperiment, student, teacher, kinds=("drop",), ceiling="published")


def shuffle(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """Shuffled steps.

    Chips: v5e:4x4 (16); hours: 3.7 SFT; USD: 71
    Compare: no published number is verified.
    """
    return from_reasoner(ErrorsExperiment, student, teacher, kinds=("shuffle",), ceiling="published")


def rule(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """One consistent wrong rule: every product is off by one.

    Chips: v5e:4x4 (16); hours: 3.7 SFT; USD: 71
    Compare: no published number is verified.
    """
    return from_reasoner(ErrorsExperiment, student, teacher, kinds=("rule",), ceiling="published")


def every_kind(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """All five kinds in one report.

    Chips: v5e:4x4 (16); hours: 13.5 SFT; USD: 260
    Compare: no published number is verified.
    """
    return from_reasoner(ErrorsExperiment, student, teacher, ceiling="published")


EXPERIMENTS = {"slip": slip, "answer": answer, "drop": drop, "shuffle": shuffle, "rule": rule, "every_kind": every_kind}


def get_config(variant: str | None = None) -> PaperExperiment:
    """NAME[/STUDENT-from-TEACHER]; slip without a variant."""
    return pick(variant, EXPERIMENTS)
