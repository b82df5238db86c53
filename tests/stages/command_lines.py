"""Command lines that are right, for tests to make one thing wrong in, and the one line that a stage then ends in."""

import dataclasses
import importlib
from pathlib import Path

from w2sr_jax.core.runtime import launch

ONE_DEVICE = ("--config.mesh.data=1", "--config.mesh.fsdp=1", "--config.mesh.tensor=1")
MICRO = Path(__file__).parents[2] / "configs" / "experiments" / "micro.py"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Good inputs of every stage, by config key; a test replaces one of them."""

    keys: dict[str, dict[str, str]]
    report: str  # a config file

    def argv(self, stage: str, **changes: str) -> list[str]:
        values = self.keys[stage] | {key.replace("__", "."): value for key, value in changes.items()}
        flags = [f"--config.{key}={value}" for key, value in values.items() if value]
        files = {"report": [f"--config={self.report}"], "run": [f"--config={MICRO}:tiny"]}
        return [*files.get(stage, []), *flags, *(ONE_DEVICE if "mesh" in fields(stage) else ())]


def good_inputs(files, report: Path) -> Inputs:
    """Of a tiny model and its data; `report` is where a config file of the report stage may be written."""
    report.write_text(
        "from w2sr_jax.core.stage_config import ReportConfig\n"
        "def get_config(variant=None):\n"
        "    return ReportConfig(arms={} if variant else {'base': ('nowhere/base',), 'grpo': ('nowhere/grpo',)})\n"
    )
    training = {"model": files.model, "template": "plain"}
    asking = training | {"problems": files.problems}
    data = {"data.problems": files.problems, "data.traces": files.traces}
    sft = {"sft.model": files.model} | {f"sft.{key}": value for key, value in data.items()}
    return Inputs(
        {
            "compare": sft | {"generate": "(2, 2, 4)"},
            "convert": {"model": files.model},
            "distill": asking | {"sampling.max_tokens": "4"},
            "filter": {"problems": files.problems, "traces": files.traces},
            "transform": {"traces": f"('{files.traces}',)", "problems": files.problems},
            "score": {"model": files.model, "data.template": "plain"} | data,
            "sft": {"model": files.model, "data.template": "plain", "data.max_length": "32", "steps": "1"} | data,
            "grpo": asking | {"prompts_per_step": "2", "minibatch_prompts": "2", "sampling.max_tokens": "4"},
            "evaluate": asking | {"sampling.max_tokens": "4"},
            "report": {},
            "plan": {"model": files.model, "topology": "cpu:2"},
            "micro": {"what": "scramble", "traces": files.traces},
            "doctor": {},
            "run": {},
        },
        str(report),
    )


def fields(stage):
    return {field.name for field in dataclasses.fields(module(stage).CONFIG)}


def module(stage):
    return importlib.import_module(f"w2sr_jax.stages.{stage}")


def failure(stage, argv, workdir, capsys):
    """(exit code, the line on stderr), once it is sure that it is one line."""
    code = launch(stage, module(stage).main, module(stage).CONFIG, [f"--workdir={workdir}", *argv])
    error = [line for line in capsys.readouterr().err.splitlines() if not _is_log(line)]
    assert len(error) == 1, error
    assert error[0].startswith(f"w2sr {stage}: ")
    return code, error[0]


def _is_log(line: str) -> bool:
    """A line with the time, as a stage logs it; not an error."""
    return line[2:3] == ":" and line[:2].isdigit()
