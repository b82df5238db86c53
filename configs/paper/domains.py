"""Does it hold outside mathematics? The paper's experiment on problems whose verifier is no mathematics.

    w2sr run --config=configs/paper/domains.py:syllogism --workdir=runs/syllogism
    w2sr run --config=configs/paper/domains.py:syllogism --workdir=runs/zebra \\
        --config.problems=gym:zebra_puzzles:8000:1 --config.benchmarks="('gym:zebra_puzzles:500:2',)"
    w2sr run --config=configs/paper/domains.py:multiple_choice --workdir=runs/choice \\
        --config.problems=/data/train.jsonl --config.benchmarks="('/data/test.jsonl',)"

Traces, filter, SFT, GRPO and evaluation as in qwen25.py, graded by the task's own scorer (right is a score of 1.0 and
nothing less) or by the letter of the option. Training and test problems are gym:TASK:COUNT:SEED of two seeds (any
task; `make setup EXTRAS=domains`), or files. A small task can give the same problem twice: contamination in
counts.json of the filter counts those. The teacher's RL was on mathematics.

A variant is NAME[/STUDENT-from-TEACHER], students and teachers as in qwen25.py; without them it is 7b-from-1.5b. One
workdir a domain. README.md says what chips, hours and USD count. Nothing in this file has been run at full size, and
no published number of it is verified.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.pick import pair, pick


def gym(task: str, student: str, teacher: str) -> PaperExperiment:
    """8,000 problems of a task of reasoning-gym for training, 500 of another seed for evaluation."""
    return domain(student, teacher, f"gym:{task}:8000:1", f"gym:{task}:500:2")


def domain(student: str, teacher: str, problems: str, test: str) -> PaperExperiment:
    """The paper's experiment on other problems. The models' own RL was on mathematics, so the ceiling is trained."""
    return pair(student, teacher, problems=problems, benchmarks=(test,), published="")


def letter_counting(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """How often a letter stands in a text.

    Chips: v5e:4x4 (16); hours: 4.7 SFT + at most 154 GRPO; USD: 90 + at most 2,955
    Compare: no published number is verified.
    """
    return gym("letter_counting", student, teacher)


def syllogism(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """Whether a conclusion follows.

    Chips: v5e:4x4 (16); hours: 4.7 SFT + at most 154 GRPO; USD: 90 + at most 2,955
    Compare: no published number is verified.
    """
    return gym("syllogism", student, teacher)


def spell_backward(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """A word spelt backwards.

    Chips: v5e:4x4 (16); hours: 4.7 SFT + at most 154 GRPO; USD: 90 + at most 2,955
    Compare: no published number is verified.
    """
    return gym("spell_backward", student, teacher)


def knights_knaves(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """Who lies and who does not.

    Chips: v5e:4x4 (16); hours: 4.7 SFT + at most 154 GRPO; USD: 90 + at most 2,955
    Compare: no published number is verified.
    """
    return gym("knights_knaves", student, teacher)


def multiple_choice(student: str = "7b", teacher: str = "1.5b") -> PaperExperiment:
    """Science questions with options (ARC-Challenge), or any file of this form.

    Chips: v5e:4x4 (16); hours: 4.9 SFT + at most 154 GRPO; USD: 94 + at most 2,955
    Compare: no published number is verified.
    """
    arc = "hf:allenai/ai2_arc:ARC-Challenge"
    return domain(student, teacher, f"{arc}/train", f"{arc}/test")


EXPERIMENTS = {
    "letter_counting": letter_counting,
    "syllogism": syllogism,
    "spell_backward": spell_backward,
    "knights_knaves": knights_knaves,
    "multiple_choice": multiple_choice,
}


def get_config(variant: str | None = None) -> PaperExperiment:
    """NAME[/STUDENT-from-TEACHER]; letter_counting without a variant."""
    return pick(variant, EXPERIMENTS)
