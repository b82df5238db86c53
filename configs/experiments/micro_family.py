"""Does weak-to-strong cross model families?

    w2sr run --config=configs/experiments/micro_family.py --workdir=runs/questions        seeds 0, 1 and 2
    w2sr run --config=configs/experiments/micro_family.py:one --workdir=runs/questions    seed 0 alone

A Llama teacher teaches a Qwen student and a Qwen teacher a Llama student, beside each family's own pair. The families
differ in architecture and in the numbers of their tokens; traces pass as text, and the student's template and tokenizer
render them. The Qwen models are those of micro.py; the Llama ones have their own ceiling.
"""

from w2sr_jax.micro.questions.experiment import QuestionsExperiment, variant_of


def get_config(variant: str | None = None) -> QuestionsExperiment:
    """Three seeds, "one", or a "tiny" one whose models learn nothing (for tests)."""
    return variant_of(variant, "family")
