"""A small experiment for `w2sr run`: each stage that an experiment of models may have, on a mesh of all devices."""

import dataclasses
from pathlib import Path

from tests.multiprocess import tasks
from w2sr_jax.core.config import CheckpointConfig, DataConfig, DecodeConfig, SamplingConfig, opt
from w2sr_jax.core.stage_config import DistillConfig, EvaluateConfig, ExperimentConfig, Node, ReportConfig
from w2sr_jax.core.trace_config import FilterConfig, ScoreConfig, SelectConfig, TransformConfig

STEPS = 80


@dataclasses.dataclass(slots=True, kw_only=True)
class Small(ExperimentConfig):
    """A teacher learns a format and writes traces; a student learns from them; all are evaluated and reported."""

    inputs: str = opt(help="where tasks.make_inputs wrote")

    def nodes(self) -> list[Node]:
        root = Path(self.inputs)
        model, problems, traces = (str(root / name) for name in ("model", "problems.jsonl", "traces.jsonl"))
        sampling, decode = SamplingConfig(max_tokens=8), DecodeConfig(dtype="float32", batch_size=16)
        asked = {"problems": problems, "template": "plain", "sampling": sampling, "decode": decode}
        sft = tasks.sft_config(root, (1, -1, 1), steps=STEPS, checkpoint=CheckpointConfig(every_steps=7, keep_last=2))
        student = dataclasses.replace(sft, data=dataclasses.replace(sft.data, traces="@filter/all.jsonl"))
        select = TransformConfig(
            what="select",
            traces=(traces,),
            select=SelectConfig(by="surprisal", scores="@score/scores.jsonl", keep="lowest", size=9),
        )
        read = DataConfig(problems=problems, traces=traces, template="plain", max_length=32, batch_size=6)
        lab = ReportConfig(
            traces=("@select",),
            problems=problems,
            score_model=model,
            score_template="plain",
            score_max_length=32,
            score_dtype="float32",
        )
        models = {"base": model, "w2sr": "@student/export", "grpo": "@teacher/export"}
        return [
            Node(name="teacher", stage="sft", config=sft),
            Node(name="traces", stage="distill", config=DistillConfig(model="@teacher/export", **asked)),
            Node(name="filter", stage="filter", config=FilterConfig(problems=problems, traces="@traces/traces.jsonl")),
            Node(name="student", stage="sft", config=student),
            Node(name="score", stage="score", config=ScoreConfig(model=model, data=read, dtype="float32")),
            Node(name="select", stage="transform", config=select),
            Node(name="lab", stage="report", config=lab),
            *(
                Node(name=f"eval/{arm}", stage="evaluate", config=EvaluateConfig(model=of, **asked))
                for arm, of in models.items()
            ),
            Node(
                name="report",
                stage="report",
                config=ReportConfig(arms={arm: (f"@eval/{arm}",) for arm in models}, bootstrap=200),
            ),
        ]


def get_config() -> Small:
    return Small(inputs="")
