"""What the configs of an experiment's nodes read, from other nodes and from outside; what an end needs of all nodes."""

import dataclasses
import typing

import pytest

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.references import inputs, needed, references
from w2sr_jax.core.stage_config import (
    ConvertConfig,
    DistillConfig,
    EvaluateConfig,
    GRPOConfig,
    Node,
    ReportConfig,
    SFTConfig,
)
from w2sr_jax.core.tool_config import CompareConfig, DoctorConfig, PlanConfig, RecipeConfig
from w2sr_jax.core.trace_config import FilterConfig, ScoreConfig, TransformConfig
from w2sr_jax.micro.config import MicroConfig

STAGES = (
    ConvertConfig,
    DistillConfig,
    FilterConfig,
    TransformConfig,
    ScoreConfig,
    SFTConfig,
    GRPOConfig,
    EvaluateConfig,
)
REST = (ReportConfig, MicroConfig, PlanConfig, CompareConfig, DoctorConfig)

# Text that is no path to an input: names, prompts, where something is written or asked.
NO_INPUT = {
    *("template", "response_prefix", "profile", "benchmark", "protocol", "sync_dir", "score_template", "published"),
    *("title", "baselines", "base", "ceiling", "claims", "row_notes", "gates", "peers", "device_kind", "bucket"),
    *("urls", "served_model", "source", "topology"),
}


def node(name: str, *reads: str) -> Node:
    return Node(name=name, stage="transform", config=TransformConfig(what="ensemble", traces=reads))


def text_fields(config: type):
    """(name, whether it is marked) of every field that holds text, nested configs included."""
    kinds = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind = kinds[field.name]
        if dataclasses.is_dataclass(kind):
            yield from text_fields(kind)
        elif (kind is str or str in typing.get_args(kind)[-1:] or "str, ..." in str(kind)) and (
            "choices" not in field.metadata
        ):
            yield field.name, bool(field.metadata.get("reads"))


def test_references_are_found_in_nested_values():
    config = FilterConfig(problems="@a/problems.jsonl", traces="file.jsonl", contamination=("@b/x", "@a/y"))
    assert references(config, {"a", "b"}) == ["a", "b"]


@pytest.mark.parametrize("config", STAGES + REST)
def test_every_text_of_a_stage_is_an_input_or_known_to_be_none(config):
    assert [name for name, reads in text_fields(config) if reads == (name in NO_INPUT)] == []


def test_inputs_are_found_in_nested_configs_tuples_and_tables():
    sft = SFTConfig(model="model", data=DataConfig(problems="problems", traces="traces", template="no"))
    recipes = {"name": RecipeConfig(shape="shape")}
    assert list(inputs(CompareConfig(sft=sft, recipes=recipes))) == ["model", "problems", "traces", "", "shape"]
    report = ReportConfig(arms={"base": ("one", "two")}, trace_sets={"name": "three"})
    assert [text for text in inputs(report) if text] == ["one", "two", "three"]


def test_only_what_an_end_needs_is_kept_in_its_order():
    nodes = [node("a"), node("x", "@a/t"), node("b", "@a/t"), node("y", "@x/t"), node("end", "@b/t")]
    assert [n.name for n in needed(nodes, ["end"])] == ["a", "b", "end"]
