"""Does weak-to-strong cross model families? A Llama teacher and Qwen students, and back.

    w2sr run --config=configs/paper/families.py:7b-from-llama-8b --workdir=runs/7b-from-llama
    w2sr run --config=configs/paper/families.py:8b-from-1.5b --workdir=runs/llama

Traces pass as text, which the student's template and tokenizer turn into its own tokens. The Llama teacher is
meta-llama/Llama-3.1-8B, plain as the Non-Reasoner and after SimpleRL-Zoo's RL as the Reasoner, both asked with its
prompt (abel); the teacher is shown beside the arms and not compared with them, where its prompt is not the student's.
Variants are STUDENT[-from-TEACHER][-vs-TEACHER], students 7b and 8b, teachers those of qwen25.py and llama-8b;
overrides, benchmarks and costs are as there. Nothing in this file has been run at full size.

No published number of weak-to-strong across families is verified; SimpleRL-Zoo's rows of each student are.
"""

from w2sr_jax.paper.experiment import PaperExperiment
from w2sr_jax.paper.models import TEACHERS
from w2sr_jax.paper.pick import pair, pick_pair


def llama_teaches_qwen(teacher: str = "llama-8b", rival: str = "") -> PaperExperiment:
    """A Llama-3.1-8B teacher and a Qwen2.5-7B student.

    Chips: v5e:4x4 (16); hours: 4.9 SFT + at most 154 GRPO; USD: 94 + at most 2,955
    Compare: no published number is verified; base and RL of the student as in qwen25.py.
    """
    return pair("7b", teacher, rival)


def qwen_teaches_llama(teacher: str = "1.5b", rival: str = "") -> PaperExperiment:
    """A Qwen2.5 teacher and the Llama-3.1-8B student, as in llama31.py.

    Chips: v5e:4x4 (16); hours: 5.4 SFT + at most 172 GRPO; USD: 104 + at most 3,306
    Compare: no published number is verified; base and RL of the student as in llama31.py.
    """
    return pair("8b", teacher, rival)


EXPERIMENTS = {"7b": llama_teaches_qwen, "8b": qwen_teaches_llama}


def get_config(variant: str | None = None) -> PaperExperiment:
    """STUDENT[-from-TEACHER][-vs-TEACHER]; 7b-from-llama-8b without a variant."""
    return pick_pair(variant, EXPERIMENTS, TEACHERS)
