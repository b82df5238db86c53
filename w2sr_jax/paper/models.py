"""Who teaches and who learns in the paper's family, and what differs from student to student.

Where a value comes from is said beside it: [V] read in its source, [2nd] another project's notes about the official
code, [ours] a choice of ours because neither says.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A model after RL and the same model before it."""

    reasoner: str
    non_reasoner: str
    template: str = "qwen-boxed"  # [ours] for Qwen: which prompt each was tuned on is not known
    protocol: str = "simplerl"  # the family's own for that prompt, where the student's is another
    trace_tokens: int = 4096  # longest trace [ours]: what SFT can use


def _qwen(size: str, trace_tokens: int = 4096) -> Teacher:
    # [V]: the Reasoners are SimpleRL-Zoo's checkpoints, the Non-Reasoners the models that those were trained from.
    return Teacher(
        reasoner=f"hkust-nlp/Qwen-2.5-{size}-SimpleRL-Zoo",
        non_reasoner=f"Qwen/Qwen2.5-{size}",
        trace_tokens=trace_tokens,
    )


QWEN_TEACHERS = {
    "0.5b": _qwen("0.5B"),
    "1.5b": _qwen("1.5B"),
    "7b": _qwen("7B"),
    "14b": _qwen("14B"),
    "32b": _qwen("32B"),
    # Its context of 4,096 tokens leaves 1,024 for the prompt.
    "math-7b": _qwen("Math-7B", trace_tokens=3072),
}
TEACHERS = QWEN_TEACHERS | {
    "llama-8b": Teacher(
        reasoner="hkust-nlp/Llama-3.1-8B-SimpleRL-Zoo",
        non_reasoner="meta-llama/Llama-3.1-8B",
        template="abel",  # [ours]: a model of another family knows no <|im_start|>
        protocol="simplerl-abel",
    )
}
SIZES = ("0.5b", "1.5b", "7b", "14b", "32b")  # of one family, in order


def structure_claim(reasoner: str, non_reasoner: str) -> str:
    """That structure beats scale, of two teachers by their keys: 'a small Reasoner (1.5B) teaches better than ...'."""
    sizes = [float(key.rpartition("-")[2].removesuffix("b")) for key in (reasoner, non_reasoner)]
    one, other = ("small ", "large ") if sizes[0] < sizes[1] else ("large ", "small ")
    if sizes[0] == sizes[1]:
        one = other = ""
    return f"a {one}Reasoner ({reasoner.upper()}) teaches better than a {other}Non-Reasoner ({non_reasoner.upper()})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A student's recipe: fields of paper.recipe.Recipe. remat and sft_grad_accum fit the slice of costs.json."""

    student: str
    published_ceiling: str  # the same model after the family's own RL
    published: str  # what verified numbers say of it
    learning_rate: float = 1e-5  # [2nd] for 7B, [ours] for others where not said
    epochs: float = 5.0  # likewise
    template: str = "qwen-boxed"
    protocol: str = "paper"
    grpo_tokens: int = 8192  # [V]
    grpo_kl: float = 1e-4  # [V]: up to 14B
    remat: str = "full"
    sft_grad_accum: int = 8


STUDENTS = {
    "7b": Student(
        student="Qwen/Qwen2.5-7B",
        published_ceiling="hkust-nlp/Qwen-2.5-7B-SimpleRL-Zoo",
        published="SimpleRL-Zoo: base 88.2 64.6 25.7 30.1 3.3 30.0, RL 91.7 78.2 38.6 40.4 20.0 62.5",
        remat="attention",
    ),
    "14b": Student(
        student="Qwen/Qwen2.5-14B",
        published_ceiling="hkust-nlp/Qwen-2.5-14B-SimpleRL-Zoo",
        published="SimpleRL-Zoo: base 91.6 65.4 24.3 33.5 6.7 37.5, RL 94.4 80.2 40.4 44.9 23.3 57.6",
        sft_grad_accum=16,
    ),
    "32b": Student(
        student="Qwen/Qwen2.5-32B",
        published_ceiling="hkust-nlp/Qwen-2.5-32B-SimpleRL-Zoo",
        published="SimpleRL-Zoo: base 92.9 68.6 27.9 31.1 10.0 45.0, RL 95.9 82.4 42.6 46.4 36.7 67.5",
        grpo_kl=1e-3,  # [V]: above 14B
        sft_grad_accum=4,
    ),
    "math-7b": Student(
        student="Qwen/Qwen2.5-Math-7B",
        published_ceiling="hkust-nlp/Qwen-2.5-Math-7B-SimpleRL-Zoo",
        published="the paper: base 30.71, W2SR-N 43.77 (average); "
        "SimpleRL-Zoo: base 65.5 63.6 12.5 25.8 13.3 42.5, RL 90.2 80.2 37.5 39.0 40.0 70.0",
        learning_rate=2e-5,  # [2nd]
        epochs=10.0,  # [2nd]
        grpo_tokens=3072,  # [V]: its context is 4,096 tokens
        remat="attention",
    ),
    "8b": Student(
        student="meta-llama/Llama-3.1-8B",
        published_ceiling="hkust-nlp/Llama-3.1-8B-SimpleRL-Zoo",
        published="SimpleRL-Zoo: base 39.7 13.6 4.8 3.1 0.0 2.5, RL 79.2 23.0 9.6 5.3 0.0 15.0",
        template="abel",  # [ours]: a base model of another family knows no <|im_start|>
        protocol="simplerl-abel",  # [ours]: the family's protocol for that prompt
        remat="attention",
    ),
}
