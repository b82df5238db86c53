"""Which traces should be kept?

    w2sr run --config=configs/paper/filtering.py:majority --workdir=runs/7b
    w2sr run --config=configs/paper/filtering.py:every_score/14b-from-7b --workdir=runs/14b --config.size=6000

The Reasoner answers each problem four times; every student learns from --config.size of these traces: chosen by a
score, and, as controls, drawn at random from all (arm random) and from the correct ones (arm gold). Sizes are matched;
where fewer qualify, counts.json of the traces' node says so.

A variant is NAME[/STUDENT-from-TEACHER], students and teachers as in qwen25.py; without them it is 7b-from-1.5b. The
ceiling is the published checkpoint (--config.ceiling=train for GRPO here). All variants of one pair may share a
workdir with each other and with qwen25.py: what they have in common is made once. README.md says what chips, hours and
USD count. Nothing in this file has been run at full size, and no published number of it is verified.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.filtering import FilteringExperiment
from w2sr_jax.paper.pick import from_reasoner, pick


def majority(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """Pseudo-labels by majority: no published answer is looked at.

    Chips: v5e:4x4 (16); hours: 1.8 SFT; USD: 34
    Compare: no published number is verified.
    """
    return from_reasoner(FilteringExperiment, student, teacher, scores=("majority",), ceiling="published")


def surprisal(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """The traces that the untouched student finds most and least surprising.

    Chips: v5e:4x4 (16); hours: 2.3 SFT; USD: 45
    Compare: no published number is verified.
    """
    return from_reasoner(FilteringExperiment, student, teacher, scores=("surprisal",), ceiling="published")


def length(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """The longest and the shortest traces.

    Chips: v5e:4x4 (16); hours: 2.3 SFT; USD: 45
    Compare: no published number is verified.
    """
    return from_reasoner(FilteringExperiment, student, teacher, scores=("length",), ceiling="published")


def structure(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """The traces of most steps, and those whose equations hold.

    Chips: v5e:4x4 (16); hours: 2.3 SFT; USD: 45
    Compare: no published number is verified.
    """
    return from_reasoner(FilteringExperiment, student, teacher, scores=("structure",), ceiling="published")


def difficulty(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """Correct traces of the problems that the teacher finds hardest and easiest.

    Chips: v5e:4x4 (16); hours: 2.3 SFT; USD: 45
    Compare: no published number is verified.
    """
    return from_reasoner(FilteringExperiment, student, teacher, scores=("difficulty",), ceiling="published")


def every_score(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """All of these in one report.

    Chips: v5e:4x4 (16); hours: 6.4 SFT; USD: 124
    Compare: no published number is verified.
    """
    return from_reasoner(FilteringExperiment, student, teacher, ceiling="published")


EXPERIMENTS = {
    "majority": majority,
    "surprisal": surprisal,
    "length": length,
    "structure": structure,
    "difficulty": difficulty,
    "every_score": every_score,
}


def get_config(variant: str | None = None) -> PaperExperiment:
    """NAME[/STUDENT-from-TEACHER]; majority without a variant."""
    return pick(variant, EXPERIMENTS)
