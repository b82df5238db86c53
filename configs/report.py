"""RGR of your own student against SimpleRL-Zoo's published base and RL models, from its Pass@1 alone.

    w2sr report --config=configs/report.py:simplerl-7b --workdir=runs/rgr \\
        --config.student_row="(90.4, 73.0, 33.1, 36.7, 10.0, 50.0)"

The row is Pass@1 in per cent on GSM8K, MATH500, Minerva, OlympiadBench, AIME24 and AMC23 (the one above is made up).
Variants: simplerl-0.5b, -1.5b, -7b, -math-7b, -14b, -32b, -llama-8b. Intervals follow from the number of problems;
where the published RL model does not beat its base beyond that noise, as happens on AIME24's 30 problems, RGR is said
to be undefined.

The trace lab, for any traces: what they are like, and how that goes with what their students gained.

    w2sr report --config=configs/report.py:traces --workdir=runs/lab \\
        "--config.traces=('all=runs/filtered/all.jsonl','correct=runs/filtered/correct.jsonl')" \\
        --config.problems=problems.jsonl "--config.students=('runs/eval_all','runs/eval_correct')" \\
        --config.score_model=STUDENT

Traces are files, or workdirs of distill, filter and transform. problems adds levels; students, the evaluate workdirs of
the models that learned from each set, adds what features go with; score_model adds each set's perplexity.
"""

from pathlib import Path

from w2sr_jax.core.files import read_json
from w2sr_jax.core.stage_config import ReportConfig

ROWS = Path(__file__).parent / "paper" / "simplerl_zoo.json"


def simplerl(model: str) -> ReportConfig:
    """The published rows of one model."""
    table = read_json(ROWS)
    return ReportConfig(
        title=f"RGR against SimpleRL-Zoo, {model}",
        rows={arm: tuple(row) for arm, row in table["rows"][model].items()},
        row_problems=table["problems"],
        row_notes=(f"Rows base and rl: {table['source']}.", *table["notes"], *table["row_notes"].get(model, [])),
        base="base",
        ceiling="rl",
    )


def get_config(variant: str | None = None) -> ReportConfig:
    """simplerl-MODEL or traces; simplerl-7b without a variant."""
    if variant == "traces":
        return ReportConfig(title="Trace lab")
    models = list(read_json(ROWS)["rows"])
    model = (variant or "simplerl-7b").removeprefix("simplerl-")
    if model not in models:
        raise ValueError(f"no variant {variant!r}, only {', '.join(f'simplerl-{name}' for name in models)}, traces")
    return simplerl(model)
