import ast
import dataclasses
import inspect
import json
import math
from typing import Any, Literal

import pytest

from w2sr_jax.core import config as config_module
from w2sr_jax.core import stage_config, tool_config, trace_config
from w2sr_jax.core.config import MeshConfig, SamplingConfig, describe, flatten, opt, to_dict, validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import (
    ConvertConfig,
    DistillConfig,
    EvaluateConfig,
    ExperimentConfig,
    GRPOConfig,
    ReportConfig,
    SFTConfig,
)
from w2sr_jax.core.tool_config import PlanConfig
from w2sr_jax.core.trace_config import FilterConfig

STAGES = {
    "convert": ConvertConfig(model="m"),
    "distill": DistillConfig(model="m", problems="p"),
    "filter": FilterConfig(problems="p", traces="t"),
    "grpo": GRPOConfig(model="m", problems="p"),
    "evaluate": EvaluateConfig(model="m", problems="p"),
    "report": ReportConfig(arms={"base": ("w",)}),
    "plan": PlanConfig(model="m", topology="cpu:1"),
}


def sft() -> SFTConfig:
    config = SFTConfig(model="m")
    config.data.problems, config.data.traces = "p", "t"
    return config


@dataclasses.dataclass(slots=True, kw_only=True)
class Inner:
    rate: float = opt(0.5, "a rate", minimum=0.0, maximum=1.0)


@dataclasses.dataclass(slots=True, kw_only=True)
class Demo:
    path: str = opt(help="where it is")
    count: int = opt(3, "how many", minimum=1)
    flag: bool = opt(False, "a flag")
    kind: str = opt("a", "which", choices=("a", "b"))
    names: tuple[str, ...] = opt((), "some")
    pair: tuple[int, str] = opt((1, "x"), "two")
    table: dict[str, tuple[int, ...]] = opt(dict, "a table")
    maybe: int | None = opt(None, "perhaps")
    mode: Literal["x", "y"] = opt("x", "mode")
    anything: Any = opt(None, "anything")
    inners: dict[str, Inner] = opt(dict, "a table of them")
    inner: Inner = opt(Inner, "")


@pytest.mark.parametrize("config", [*STAGES.values(), sft()], ids=lambda c: type(c).__name__)
def test_the_defaults_of_every_stage_are_valid(config):
    validate(config)


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 1},
        {"names": ("a", "b")},
        {"table": {"a": (1, 2)}},
        {"maybe": 3},
        {"mode": "y"},
        {"anything": object()},
    ],
)
def test_a_value_of_the_annotated_type_is_taken(change):
    validate(dataclasses.replace(Demo(path="p"), **{k: v for k, v in change.items() if k != "rate"}))
    validate(Inner(**{k: v for k, v in change.items() if k == "rate"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": ""}, "config.path: required (where it is); set it with --config.path=..."),
        ({"path": 3}, "config.path: expected str, got 3"),
        ({"count": "3"}, "config.count: expected int, got '3'"),
        ({"count": True}, "config.count: expected int, got True"),
        ({"count": 2.0}, "config.count: expected int, got 2.0"),
        ({"count": 0}, "config.count: must be at least 1, got 0"),
        ({"flag": 1}, "config.flag: expected bool, got 1"),
        ({"kind": "c"}, "config.kind: must be one of a, b, got 'c'"),
        ({"names": ["a"]}, "config.names: expected tuple[str, ...], got ['a']"),
        ({"names": (1,)}, "config.names: expected tuple[str, ...], got (1,)"),
        ({"pair": (1, 2)}, "config.pair: expected tuple[int, str], got (1, 2)"),
        ({"pair": (1,)}, "config.pair: expected tuple[int, str], got (1,)"),
        ({"table": {1: (1,)}}, "config.table: expected dict[str, tuple[int, ...]], got {1: (1,)}"),
        ({"maybe": "x"}, "config.maybe: expected int | None, got 'x'"),
        ({"mode": "z"}, "config.mode: expected Literal['x', 'y'], got 'z'"),
        ({"inner": Inner(rate=1.5)}, "config.inner.rate: must be at most 1.0, got 1.5"),
        ({"inner": Inner(rate=math.nan)}, "config.inner.rate: expected float, got nan"),
        ({"inner": Inner(rate=math.inf)}, "config.inner.rate: expected float, got inf"),
        ({"inner": Inner(rate=True)}, "config.inner.rate: expected float, got True"),
        ({"inner": Inner(rate=10**400)}, f"config.inner.rate: expected float, got {10**400}"),
        ({"inner": Inner}, f"config.inner: expected Inner, got {Inner!r}"),
        ({"inner": MeshConfig()}, f"config.inner: expected Inner, got {MeshConfig()}"),
        ({"inners": {"a": Inner(rate=-1.0)}}, "config.inners.a.rate: must be at least 0.0, got -1.0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_key(change, message):
    with pytest.raises(UsageError) as error:
        validate(dataclasses.replace(Demo(path="p"), **change))
    assert str(error.value) == message


def changed(config, **values):
    return dataclasses.replace(config, **values)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ConvertConfig(), "config.model: required"),
        (SFTConfig(model="m"), "config.data.problems: required"),
        (MeshConfig(data=-1, fsdp=-1), "at most one -1, got (-1, -1, 1)"),
        (MeshConfig(tensor=0), "must be positive"),
        (MeshConfig(tensor=-2), "must be positive"),
        (SamplingConfig(n=4), "n > 1 needs temperature > 0"),
        (changed(STAGES["filter"], gates=("loops",)), "config.gates: 'loops' is not a hygiene flag (length_stop"),
        (changed(STAGES["grpo"], minibatch_prompts=100), "100 does not divide prompts_per_step=1024"),
        (
            changed(STAGES["grpo"], sampling=SamplingConfig(n=1, temperature=1.0)),
            "config.sampling.n: a group needs at least 2 samples, got 1",
        ),
        (changed(STAGES["evaluate"], sampling=SamplingConfig(top_p=0.0)), "config.sampling.top_p: must be at least"),
        (ReportConfig(), "config.arms, .reports, .rows, .sections, .traces: set one of the five"),
        (
            ReportConfig(arms={"a": ("w",)}, reports=("r",)),
            "config.arms, .reports, .rows, .sections, .traces: set one of the five",
        ),
    ],
)
def test_rules_across_fields_are_checked(config, message):
    with pytest.raises(UsageError) as error:
        validate(config)
    assert message in str(error.value)


def test_two_configs_share_no_nested_value():
    first, second = sft(), sft()
    first.optimizer.learning_rate = 1.0
    assert second.optimizer.learning_rate == 1e-5


def test_a_misspelt_field_cannot_be_set():
    with pytest.raises(AttributeError):
        sft().modle = "m"
    with pytest.raises(TypeError):
        SFTConfig(modle="m")


@pytest.mark.parametrize("config", [*STAGES.values(), sft()], ids=lambda c: type(c).__name__)
def test_the_resolved_config_survives_json(config):
    assert json.loads(json.dumps(to_dict(config), allow_nan=False)) == to_dict(config)


def test_flatten_names_nested_keys():
    assert flatten({"a": 1, "b": {"c": [2], "d": {"e": 3}}}) == {"a": 1, "b.c": [2], "b.d.e": 3}
    first, second = sft(), sft()
    second.data.seed = 4
    one, two = flatten(to_dict(first)), flatten(to_dict(second))
    assert [key for key in one if one[key] != two[key]] == ["data.seed"]


def test_help_has_a_line_for_every_key_with_default_and_choices():
    lines = describe(Demo())
    assert [line.split()[0] for line in lines[:4]] == [
        "--config.path=(required)",
        "--config.count=3",
        "--config.flag=False",
        "--config.kind=a",
    ]
    assert lines[0].endswith("where it is")
    assert lines[3].endswith("which [a|b]")
    assert lines[-1].split() == ["--config.inner.rate=0.5", "a", "rate"]


@pytest.mark.parametrize("config", [*STAGES.values(), sft()], ids=lambda c: type(c).__name__)
def test_every_key_of_every_stage_has_a_help_text(config):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            test_every_key_of_every_stage_has_a_help_text(value)
        else:
            assert field.metadata["help"], f"{type(config).__name__}.{field.name}"


@pytest.mark.parametrize("module", [config_module, stage_config, trace_config, tool_config])
def test_every_field_is_declared_with_opt(module):
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            for field in (f for f in node.body if isinstance(f, ast.AnnAssign)):
                assert isinstance(field.value, ast.Call), f"{node.name}.{field.target.id}"
                assert field.value.func.id == "opt"


def test_an_experiment_without_nodes_says_what_to_override():
    with pytest.raises(UsageError, match=r"--config=FILE.py\[:VARIANT\] is required"):
        ExperimentConfig().nodes()


@dataclasses.dataclass(slots=True, kw_only=True)
class Grown:
    """A config with fields that are younger than finished runs."""

    old: int = opt(1, "")
    young: int = opt(2, "", later=True)
    made: dict[str, int] = opt(dict, "", later=True)


def test_a_later_field_shows_only_once_it_is_set():
    assert to_dict(Grown()) == {"old": 1}
    assert to_dict(Grown(young=3, made={"a": 1})) == {"old": 1, "young": 3, "made": {"a": 1}}
