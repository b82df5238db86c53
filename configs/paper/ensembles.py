"""Do several weak teachers teach better than one?

    w2sr run --config=configs/paper/ensembles.py:majority --workdir=runs/14b
    w2sr run --config=configs/paper/ensembles.py:every_way/7b --workdir=runs/7b --config.teachers="\\
        ('reasoner_0.5b=hkust-nlp/Qwen-2.5-0.5B-SimpleRL-Zoo','llama=/models/Llama-3.1-8B-SimpleRL-Zoo')"

Reasoners of 0.5B, 1.5B and 7B each answer every problem; a student of each alone, and one of the ensemble, which takes
one of their traces for each problem. All teachers are asked with one prompt.

A variant is NAME[/STUDENT]; the student is 14b without one, so that all teachers are smaller. The ceiling is the
published checkpoint (--config.ceiling=train for GRPO here). All variants of one student may share a workdir with each
other and with scale.py: what they have in common is made once. README.md says what chips, hours and USD count. Nothing
in this file has been run at full size, and no published number of it is verified.
"""

from w2sr_jax.paper.ensembles import EnsemblesExperiment
from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import pick, with_teachers


def mix(student: str = "14b") -> PaperExperiment:
    """Any teacher's trace.

    Chips: v5p:2x2x2 (8); hours: 11.3 SFT; USD: 380
    Compare: no published number is verified.
    """
    return with_teachers(EnsemblesExperiment, student, hows=("mix",), ceiling="published")


def majority(student: str = "14b") -> PaperExperiment:
    """A trace whose answer has most votes; of these the first teacher's.

    Chips: v5p:2x2x2 (8); hours: 11.3 SFT; USD: 380
    Compare: no published number is verified.
    """
    return with_teachers(EnsemblesExperiment, student, hows=("majority",), ceiling="published")


def agreement(student: str = "14b") -> PaperExperiment:
    """A trace by chance, each as likely as its answer has votes.

    Chips: v5p:2x2x2 (8); hours: 11.3 SFT; USD: 380
    Compare: no published number is verified.
    """
    return with_teachers(EnsemblesExperiment, student, hows=("agreement",), ceiling="published")


def hygiene(student: str = "14b") -> PaperExperiment:
    """The trace with the fewest hygiene flags; of these the shortest.

    Chips: v5p:2x2x2 (8); hours: 11.3 SFT; USD: 380
    Compare: no published number is verified.
    """
    return with_teachers(EnsemblesExperiment, student, hows=("hygiene",), ceiling="published")


def every_way(student: str = "14b") -> PaperExperiment:
    """All four in one report.

    Chips: v5p:2x2x2 (8); hours: 19.8 SFT; USD: 665
    Compare: no published number is verified.
    """
    return with_teachers(EnsemblesExperiment, student, ceiling="published")


EXPERIMENTS = {"mix": mix, "majority": majority, "agreement": agreement, "hygiene": hygiene, "every_way": every_way}


def get_config(variant: str | None = None) -> PaperExperiment:
    """NAME[/STUDENT]; mix without a variant."""
    return pick(variant, EXPERIMENTS)
