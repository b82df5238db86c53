"""Does weak-to-strong cross model families? Llama teacher to Qwen student and back, beside each family's own.

The two families differ in architecture and in how they number their tokens, so that nothing but text can pass between
them: traces carry text, which the student's template and tokenizer turn into its own tokens.
"""

from __future__ import annotations

import dataclasses

from w2sr_jax.micro.experiment import MicroExperiment
from w2sr_jax.micro.questions.base import SHARED, SHARED_TRACES, Asked, Claims, Part, Section
from w2sr_jax.micro.task import WORK

TO_QWEN: Claims = {
    "Qwen learns from a Llama teacher": ("from_llama", "base"),
    "Qwen beats its Llama teacher": ("from_llama", "llama_teacher"),
    "Qwen learns more from a Qwen teacher than from a Llama teacher": ("w2sr", "from_llama"),
    "Qwen learns more from a Qwen teacher's correct traces than from a Llama teacher's": ("w2sr_p", "from_llama_p"),
}
TO_LLAMA: Claims = {
    "Llama learns from a Qwen teacher": ("from_qwen", "base"),
    "Llama beats its Qwen teacher": ("from_qwen", "qwen_teacher"),
    "Llama learns more from a Llama teacher than from a Qwen teacher": ("from_llama", "from_qwen"),
    "Llama learns more from a Llama teacher's correct traces than from a Qwen teacher's": (
        "from_llama_p",
        "from_qwen_p",
    ),
}


def question(experiment: MicroExperiment, seed: int) -> Asked:
    """A Llama base, teacher and ceiling beside the Qwen ones, and students across."""
    at = f"@seed{seed}"
    stream = 20_000 + 2 * seed  # far from those of the Qwen models
    weak, strong = (dataclasses.replace(size, family="llama") for size in (experiment.weak, experiment.strong))
    exports = {
        "base": "family/strong",
        "forced": "family/strong",
        "teacher": "family/teacher",
        "grpo": "family/grpo",
    }
    parts: list[Part] = [
        ("family/weak", "micro", experiment.base(seed, at, stream, weak, experiment.weak_pretraining)),
        ("family/strong", "micro", experiment.base(seed, at, stream + 1, strong, experiment.strong_pretraining)),
        ("family/teacher", "grpo", experiment.grpo(seed, at, f"{at}/family/weak/export", experiment.teacher)),
        ("family/traces", "distill", experiment.distill(at, f"{at}/family/teacher/export")),
        ("family/filter", "filter", experiment.filter(seed, at, "family/traces")),
        ("family/grpo", "grpo", experiment.grpo(seed, at, f"{at}/family/strong/export", experiment.ceiling)),
    ]
    students = {  # node -> (its traces, its base model)
        "qwen_from_llama": ("family/filter/all.jsonl", "strong"),
        "qwen_from_llama_p": ("family/filter/correct.jsonl", "strong"),
        "llama_from_qwen": ("filter/all.jsonl", "family/strong"),
        "llama_from_qwen_p": ("filter/correct.jsonl", "family/strong"),
        "llama_from_llama": ("family/filter/all.jsonl", "family/strong"),
        "llama_from_llama_p": ("family/filter/correct.jsonl", "family/strong"),
    }
    for name, (traces, base) in students.items():
        parts.append((f"family/{name}", "sft", experiment.student(seed, at, f"{at}/{traces}", base=base)))
        exports[name] = f"family/{name}"
    for name, node in exports.items():
        prefix = WORK if name == "forced" else ""
        parts.append((f"family/{name}_test", "evaluate", experiment.evaluate(at, f"{at}/{node}/export", prefix)))
    here = {name: f"family/{name}_test" for name in exports}
    qwen = SHARED | {
        "llama_teacher": here["teacher"],
        "from_llama": here["qwen_from_llama"],
        "from_llama_p": here["qwen_from_llama_p"],
    }
    llama = {
        "base": here["base"],
        "forced": here["forced"],
        "qwen_teacher": SHARED["teacher"],
        "llama_teacher": here["teacher"],
        **{name.removeprefix("llama_"): here[name] for name in students if name.startswith("llama_")},
        "grpo": here["grpo"],
    }
    of_llama = {name.removeprefix("llama_"): path for name, (path, _) in students.items() if name.startswith("llama_")}
    of_qwen = SHARED_TRACES | {
        name.removeprefix("qwen_"): path for name, (path, base) in students.items() if base == "strong"
    }
    title = "Does it cross model families?"
    sections = [
        Section("family_qwen", f"{title} Llama teacher, Qwen student", qwen, TO_QWEN, of_qwen),
        Section("family_llama", f"{title} Qwen teacher, Llama student", llama, TO_LLAMA, of_llama),
    ]
    return Asked(parts, sections)
