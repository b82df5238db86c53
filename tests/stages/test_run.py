"""The experiment runner: order, references, reuse, and what a changed config or input redoes."""

import dataclasses
import hashlib
import json
import os
import signal
import sys

import pytest

from w2sr_jax.core import runtime
from w2sr_jax.core.config import opt, to_dict, validate
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.records import GradedTrace, Problem, Trace
from w2sr_jax.core.runtime import launch
from w2sr_jax.core.stage_config import EvaluateConfig, ExperimentConfig, Node, ReportConfig, SFTConfig
from w2sr_jax.core.trace_config import FilterConfig
from w2sr_jax.stages import filter as filter_stage
from w2sr_jax.stages import run, sft


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


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("nonsense", "node last: no stage 'nonsense'"),
        ("distill", "node last: distill takes a DistillConfig, not a FilterConfig"),
    ],
)
def test_a_stage_that_cannot_run_is_named_before_anything_runs(tmp_path, experiment, stage, message):
    class Odd(ExperimentConfig):
        def nodes(self):
            last = Node(name="last", stage=stage, config=FilterConfig(problems="p", traces="@second/all.jsonl"))
            return [*experiment.nodes(), last]

    with pytest.raises(UsageError, match=message):
        run.main(Odd(), str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()


def test_a_required_field_of_a_node_is_named_without_a_flag():
    with pytest.raises(UsageError, match=r"^a/first.traces: required \(traces.jsonl of `distill`\)$"):
        validate(FilterConfig(problems="p"), "a/first")


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
    import types

    module = types.ModuleType("run_experiment_under_test")
    module.CURRENT = experiment
    sys.modules[module.__name__] = module
    argv = [f"--config={path}", f"--workdir={tmp_path / 'w'}"]
    assert launch("run", run.main, run.CONFIG, argv) == 0
    assert launch("run", run.main, run.CONFIG, [*argv, "--config.seed=5"]) == 0
    assert json.loads((tmp_path / "w/second/config.json").read_text())["seed"] == 5


@dataclasses.dataclass(slots=True, kw_only=True)
class FilterAndTrain(ExperimentConfig):
    """filter -> sft, then a filter that needs neither."""

    first: FilterConfig = opt(FilterConfig, "")
    sft: SFTConfig = opt(SFTConfig, "")

    def nodes(self) -> list[Node]:
        data = dataclasses.replace(self.sft.data, traces="@first/all.jsonl")
        return [
            Node(name="first", stage="filter", config=self.first),
            Node(name="train", stage="sft", config=dataclasses.replace(self.sft, data=data)),
            Node(name="last", stage="filter", config=self.first),
        ]


def filter_and_train(files):
    """Eight steps, with a checkpoint after every third."""
    return FilterAndTrain(first=FilterConfig(problems=files.problems, traces=files.traces), sft=files.sft())


def test_a_half_finished_experiment_resumes_after_its_workdir_was_moved(files, tmp_path, kill_in, killed):
    experiment = filter_and_train(files)
    undo = kill_in(sft, "make_sft_step", 5)
    with pytest.raises(killed):
        run.main(experiment, str(tmp_path / "here"))
    undo()
    before = [(row["step"], row["time"]) for row in read_metrics(tmp_path / "here/train")]
    (tmp_path / "here").rename(tmp_path / "there")
    assert run.main(experiment, str(tmp_path / "there")) == {"first": "reused", "train": "done", "last": "done"}
    after = [(row["step"], row["time"]) for row in read_metrics(tmp_path / "there/train")]
    assert [step for step, _ in after] == list(range(8))
    assert after[:3] == before[:3], "it went on from the checkpoint of step 3"
    assert not list((tmp_path / "there").glob("*.old-*"))
    assert str(tmp_path / "here") not in (tmp_path / "there/train/config.json").read_text()


def test_a_workdir_that_a_stage_of_another_config_used_by_itself_is_refused_again_and_again(tmp_path, experiment):
    other = FilterConfig(problems=experiment.problems, traces=experiment.traces, max_traces=1)
    runtime.run(filter_stage.main, other, tmp_path / "w/second", "filter")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"second holds another config \(max_traces: 1 -> 2"):
            run.main(experiment, str(tmp_path / "w"))


def test_sigterm_during_the_last_step_of_training_ends_the_experiment_before_the_next_stage(
    files, tmp_path, monkeypatch, capsys
):
    make = sft.make_sft_step

    def signals_at_the_last(*args):
        step, calls = make(*args), iter(range(8))

        def signalled(*inner):
            if next(calls) == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*inner)

        return signalled

    monkeypatch.setattr(sft, "make_sft_step", signals_at_the_last)
    experiment = filter_and_train(files)
    monkeypatch.setattr(sys.modules[__name__], "CURRENT", experiment, raising=False)
    monkeypatch.setitem(sys.modules, "run_experiment_under_test", sys.modules[__name__])
    path = tmp_path / "c.py"
    path.write_text("import sys\ndef get_config():\n    return sys.modules['run_experiment_under_test'].CURRENT\n")
    argv = [f"--config={path}", f"--workdir={tmp_path / 'w'}"]
    assert launch("run", run.main, run.CONFIG, argv) == 75
    assert "w2sr run: stopped by SIGTERM; the same command resumes" in capsys.readouterr().err
    assert (tmp_path / "w/train/done.json").exists(), "what was nearly done is done"
    assert not (tmp_path / "w/last").exists()
    assert launch("run", run.main, run.CONFIG, argv) == 0
    assert run.main(experiment, str(tmp_path / "w")) == dict.fromkeys(("first", "train", "last"), "reused")


def test_without_inputs_from_outside_a_key_is_the_hash_of_stage_config_and_outputs(tmp_path):
    one = node("a", traces="@b/all.jsonl")
    said = json.dumps(["filter", to_dict(one.config)], sort_keys=True) + "hash of b"
    assert run.node_key(one, {"b": "hash of b"}) == hashlib.sha256(said.encode()).hexdigest()


def test_every_file_of_a_model_from_outside_counts(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    names = ("config.json", "tokenizer.json", "chat_template.jinja", "merges.txt", "tokenizer.model", "x.safetensors")
    for name in names:
        (model / name).write_text("one")
    seen = {run.node_key(node("a", traces=str(model)), {})}
    for name in names:
        (model / name).write_text("other")
        seen.add(run.node_key(node("a", traces=str(model)), {}))
    assert len(seen) == 1 + len(names)


def test_only_what_a_stage_reads_counts_whatever_lies_in_the_current_directory(tmp_path, monkeypatch):
    config = EvaluateConfig(model="m", problems="bench:math500", template="plain", response_prefix="w " * 400)
    asked = Node(name="a", stage="evaluate", config=config)
    key = run.node_key(asked, {})
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/x.json").write_text("a folder with the name of a template")
    monkeypatch.chdir(tmp_path)
    assert run.node_key(asked, {}) == key
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("a model")
    assert run.node_key(asked, {}) != key


def test_a_named_set_of_traces_counts(tmp_path):
    path = tmp_path / "lr=1.jsonl"
    asked = [Node(name="a", stage="report", config=ReportConfig(traces=(text,))) for text in (f"all={path}", str(path))]
    path.write_text("one")
    before = [run.node_key(node, {}) for node in asked]
    path.write_text("other")
    assert all(run.node_key(node, {}) != key for node, key in zip(asked, before))


def test_of_a_stages_workdir_what_is_for_resuming_does_not_count(tmp_path, experiment):
    run.main(experiment, str(tmp_path / "w"))
    place = tmp_path / "w/second"
    (place / "export").mkdir()
    key = run.node_key(node("a", traces=str(place)), {})
    for name in ("config.json", "clock.json", "ledger.jsonl", "done.json"):
        (place / name).write_text("other")
    assert run.node_key(node("a", traces=str(place)), {}) == key
    (place / "export/config.json").write_text("of a model that was exported there")
    assert run.node_key(node("a", traces=str(place)), {}) != key
