"""Which node of an experiment reads which, and what of an experiment an end needs."""

from w2sr_jax.core.references import needed, references
from w2sr_jax.core.stage_config import Node
from w2sr_jax.core.trace_config import FilterConfig, TransformConfig


def node(name: str, *reads: str) -> Node:
    return Node(name=name, stage="transform", config=TransformConfig(what="ensemble", traces=reads))


def test_references_are_found_in_nested_values():
    config = FilterConfig(problems="@a/problems.jsonl", traces="file.jsonl", contamination=("@b/x", "@a/y"))
    assert references(config, {"a", "b"}) == ["a", "b"]


def test_only_what_an_end_needs_is_kept_in_its_order():
    nodes = [node("a"), node("x", "@a/t"), node("b", "@a/t"), node("y", "@x/t"), node("end", "@b/t")]
    assert [n.name for n in needed(nodes, ["end"])] == ["a", "b", "end"]
