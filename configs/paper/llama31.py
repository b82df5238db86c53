"""The cross-family check: Qwen2.5 teachers, the student Llama-3.1-8B.

    w2sr run --config=configs/paper/llama31.py:8b-from-1.5b --workdir=runs/llama

Variants, overrides and benchmarks are as in configs/paper/qwen25.py. Chips, hours and cost are not stated here:
`w2sr plan` is to compute them. Nothing in this file has been run at full size.

No number of the paper for this student could be verified. The student is asked with SimpleRL-Zoo's simple prompt
(abel), its teachers with qwen-boxed, so the teacher is shown beside the arms and not compared with them.
"""

from w2sr_jax.core import paper
from w2sr_jax.core.paper import PaperExperiment


def student_8b(teacher: str) -> PaperExperiment:
    """Llama-3.1-8B. Compare: base 39.7 13.6 4.8 3.1 0.0 2.5, RL 79.2 23.0 9.6 5.3 0.0 15.0 (SimpleRL-Zoo)."""
    return paper.experiment(
        "meta-llama/Llama-3.1-8B",
        teacher,
        published="SimpleRL-Zoo: base 39.7 13.6 4.8 3.1 0.0 2.5, RL 79.2 23.0 9.6 5.3 0.0 15.0",
        published_ceiling="hkust-nlp/Llama-3.1-8B-SimpleRL-Zoo",
        template="abel",  # [ours]: a base model of another family knows no <|im_start|>
        protocol="simplerl-abel",  # [ours]: the family's protocol for that prompt
        teacher_protocol="simplerl",
        learning_rate=1e-5,  # [ours]: that of Qwen2.5-7B
        epochs=5.0,  # [ours], likewise
    )


MAKERS = {"8b": student_8b}


def get_config(variant: str | None = None) -> PaperExperiment:
    """8b-from-TEACHER; from 1.5b without a variant."""
    return paper.pick(variant, MAKERS)
