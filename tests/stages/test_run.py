"""The experiment runner: order, references, reuse, and what a changed config or input redoes."""

import dataclasses
import json

import pytest

from w2sr_jax.core.config import opt
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.records import GradedTrace, Problem, Trace
from w2sr_jax.core.runtime import launch
from w2sr_jax.core.stage_config import ExperimentConfig, Node
from w2sr_jax.core.trace_config import FilterConfig
from w2sr_jax.stages import run


@dataclasses.dataclass(slots=True, kw_only=True)
class TwoFilters(ExperimentConfig):
    """filter -> filter: the second reads what the first wrote."""

    problems: str = opt(help="")
    traces: str = opt(help="")
    seed: int = opt(0, "of the second")

    def nodes(self) -> list[Node]:
        second = FilterConfig(problems=self.problems, traces="@a/first/all.jsonl", max_traces=2, seed=self.seed)
        return [
            Node(name="second", stage="filter", config=second),
            Node(name="a/first", stage="filter", config=FilterConfig(problems=self.problems, traces=self.traces)),
        ]


@pytest.fixture
def experiment(tmp_path):
    problems = [Problem(id=f"p{i}", problem=f"{i}+1?", answer=str(i + 1)) for i in range(6)]
    traces = [
        Trace(
            problem_id=p.id,
            sample=0,
            response=f"\\boxed{{{p.answer if i % 2 else 0}}}",
            response_tokens=3,
            finish_reason="stop",
            teacher="t",
        )
        for i, p in enumerate(problems)
    ]
    write_jsonl(tmp_path / "problems.jsonl", problems)
    write_jsonl(tmp_path / "traces.jsonl", traces)
    return TwoFilters(problems=str(tmp_path / "problems.jsonl"), traces=str(tmp_path / "traces.jsonl"))


def node(name, **strings):
    return Node(name=name, stage="filter", config=FilterConfig(**({"problems": "p", "traces": "t"} | strings)))


def test_nodes_run_after_what_they_read():
    nodes = [node("c", traces="@b/x"), node("b", traces="@a/x"), node("a")]
    assert [n.name for n in run.in_order(nodes)] == ["a", "b", "c"]


def test_a_reference_takes_the_longest_node_name():
    assert run.split_reference("@seed0/sft/export", {"seed0", "seed0/sft"}) == ("seed0/sft", "export")
    assert run.split_reference("@a", {"a"}) == ("a", "")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("a", traces="@b/x"), node("b", traces="@a/x")], "a -> b -> a"),
        ([node("a", traces="@nowhere/x")], "@nowhere/x"),
        ([node("a"), node("a")], "same name"),
    ],
)
def test_an_impossible_experiment_is_named(nodes, message):
    with pytest.raises(UsageError, match=message):
        run.in_order(nodes)


def test_an_unknown_stage_is_named(tmp_path, experiment):
    class Odd(ExperimentConfig):
        def nodes(self):
            return [Node(name="x", stage="nonsense", config=FilterConfig(problems="p", traces="t"))]

    with pytest.raises(UsageError, match="no stage 'nonsense'"):
        run.main(Odd(), str(tmp_path / "w"))


def test_a_finished_experiment_is_reused(tmp_path, experiment):
    assert run.main(experiment, str(tmp_path / "w")) == {"a/first": "done", "second": "done"}
    assert run.main(experiment, str(tmp_path / "w")) == {"a/first": "reused", "second": "reused"}
    assert len(read_jsonl(tmp_path / "w/second/all.jsonl", GradedTrace)) == 2


def test_a_changed_config_redoes_only_what_depends_on_it_and_keeps_the_old(tmp_path, experiment):
    run.main(experiment, str(tmp_path / "w"))
    changed = dataclasses.replace(experiment, seed=1)
    assert run.main(changed, str(tmp_path / "w")) == {"a/first": "reused", "second": "done"}
    assert len(list((tmp_path / "w").glob("second.old-*"))) == 1


def test_a_changed_input_file_redoes_what_reads_it(tmp_path, experiment):
    run.main(experiment, str(tmp_path / "w"))
    traces = read_jsonl(experiment.traces, Trace)
    write_jsonl(experiment.traces, traces[:4])
    assert run.main(experiment, str(tmp_path / "w")) == {"a/first": "done", "second": "done"}
    assert len(read_jsonl(tmp_path / "w/a/first/all.jsonl", GradedTrace)) == 4


def test_a_node_that_fails_leaves_the_others_finished(tmp_path, experiment):
    broken = dataclasses.replace(experiment, traces=str(tmp_path / "broken.jsonl"))
    (tmp_path / "broken.jsonl").write_text('{"schema": "trace/1", "problem_id": ')
    with pytest.raises(W2SRError, match=r"broken.jsonl: line 1: not JSON"):
        run.main(broken, str(tmp_path / "w"))
    assert not (tmp_path / "w/a/first/done.json").exists()
    write_jsonl(tmp_path / "broken.jsonl", read_jsonl(experiment.traces, Trace))
    assert run.main(broken, str(tmp_path / "w"))["second"] == "done"


def test_run_takes_another_config_in_the_same_workdir(tmp_path, experiment):
    path = tmp_path / "c.py"
    path.write_text("import sys\ndef get_config():\n    return sys.modules['run_experiment_under_test'].CURRENT\n")
    import sys
    import types

    module = types.ModuleType("run_experiment_under_test")
    module.CURRENT = experiment
    sys.modules[module.__name__] = module
    argv = [f"--config={path}", f"--workdir={tmp_path / 'w'}"]
    assert launch("run", run.main, run.CONFIG, argv) == 0
    assert launch("run", run.main, run.CONFIG, [*argv, "--config.seed=5"]) == 0
    assert json.loads((tmp_path / "w/second/config.json").read_text())["seed"] == 5
