"""Small synthetic workdirs of evaluations and of whole experiments, for what reports on them."""

import json

import numpy as np

from w2sr_jax.core.cost import LedgerLine, append_ledger
from w2sr_jax.core.files import read_json, write_json, write_jsonl
from w2sr_jax.core.records import Prediction
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.grading.statistics import wilson_interval
from w2sr_jax.stages import report

DECODING = {
    "template": "plain",
    "response_prefix": "",
    "max_tokens": 64,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "n": 1,
    "stop_token_ids": [3],
    "dtype": "float32",
    "engine": "jax",
    "problems_sha256": "ab",
}


def evaluate(workdir, right, total=100, benchmark="micro", response="so 4", decoding=None, shift=0):
    """An evaluate workdir in which `right` of `total` problems, the first ones after `shift`, are right."""
    oks = np.roll(np.arange(total) < right, shift)
    predictions = [
        Prediction(
            benchmark=benchmark,
            problem_id=f"p{i}",
            sample=0,
            response=response,
            response_tokens=9,
            finish_reason="length" if i == 0 else "stop",
            extracted="4" if ok else None,
            correct=bool(ok),
            hygiene=["length_stop"] if i == 0 else [],
        )
        for i, ok in enumerate(oks)
    ]
    write_jsonl(workdir / "predictions.jsonl", predictions)
    result = {"benchmark": benchmark, "n": total, "k": 1, "pass_at_1": right / total}
    result |= {"interval": list(wilson_interval(right, total)), "stop_rate": 1 - 1 / total, "grader": "g1"}
    write_json(workdir / "result.json", result | {"decoding": DECODING | (decoding or {})})
    return (str(workdir),)


def spend(workdir, stage, seconds, compile_seconds=0.0, tokens_out=0, flops=0.0, usd=None):
    line = LedgerLine(
        stage=stage,
        name=workdir.name,
        device_kind="cpu",
        device_count=1,
        seconds=seconds,
        device_seconds=seconds,
        compile_seconds=compile_seconds,
        tokens_in=0,
        tokens_out=tokens_out,
        flops=flops,
        usd=usd,
    )
    append_ledger(workdir, line)
    return str(workdir)


def experiment(root, base=10, student=50, ceiling=60, forced=40, seed=0):
    """The config of a whole small experiment."""
    arms = {
        "base": evaluate(root / "e-base", base),
        "forced": evaluate(root / "e-forced", forced, decoding={"response_prefix": "T"}),
        "w2sr": evaluate(root / "e-w2sr", student),
        "grpo": evaluate(root / "e-grpo", ceiling),
    }
    distill = spend(root / "distill", "distill", 8.0, tokens_out=100, flops=1e9)
    sft = spend(root / "sft", "sft", 2.0, compile_seconds=1.0, flops=1e9)
    grpo = spend(root / "grpo", "grpo", 40.0, compile_seconds=2.0, tokens_out=1000, flops=2e10)
    teacher = spend(root / "teacher", "grpo", 10.0, tokens_out=300, flops=2e9)
    (root / "sft" / "metrics.jsonl").write_text('{"step": 0, "time": 1.0, "loss": 2.0}\n{"step": 1, "loss": null}\n')
    # The first step compiles.
    rows = [
        {"step": i, "reward": 0.1 * i, "validation/pass_at_1": 0.1 + 0.1 * i, "step_seconds": 3.0 if i else 6.0}
        for i in range(10)
    ]
    (root / "grpo" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ReportConfig(
        arms=arms,
        baselines=("forced",),
        routes={"w2sr": (distill, sft), "grpo": (grpo,)},
        teacher_route=(teacher,),
        claims={"students learn": ("w2sr", "base"), "upside down": ("base", "w2sr")},
        bootstrap=500,
        seed=seed,
    )


def seeds(root, students=(50, 54, 46), numbers=(0, 1, 2)):
    for number, student in zip(numbers, students, strict=True):
        place = root / f"s{student}"
        report.main(experiment(place, student=student, seed=number, base=10, ceiling=60), str(place / "report"))
    return tuple(str(root / f"s{student}" / "report") for student in students)


def with_rules(workdir, second, first_box):
    """Adds what evaluate says of the other scoring rules to a result."""
    result = read_json(workdir / "result.json")
    main = result["pass_at_1"]
    result["second_grader"] = {"grader": "g2", "pass_at_1": second, "main_only": 1, "second_only": 3}
    result["box_rules"] = {"first_box": first_box, "last_box": main, "stop_at_box": first_box}
    write_json(workdir / "result.json", result)
