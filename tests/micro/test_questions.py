"""The open questions at micro scale: their nodes are valid, fair and shared, and a tiny run answers all of them."""

import dataclasses
import json

import pytest

from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.config import to_dict, validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import read_json, read_jsonl
from w2sr_jax.core.records import Prediction
from w2sr_jax.core.references import references
from w2sr_jax.core.trace_config import InjectConfig, TransformConfig
from w2sr_jax.data.examples import read_traces
from w2sr_jax.micro.experiment import MicroExperiment, shrink
from w2sr_jax.micro.questions.experiment import QUESTIONS, QuestionsExperiment, variant_of
from w2sr_jax.stages import run

EVERYTHING = variant_of(None, *QUESTIONS)


def of_stage(config, stage) -> dict:
    return {node.name: node.config for node in config.nodes() if node.stage == stage}


def test_there_is_a_config_file_for_each_question_and_one_for_all():
    for name in QUESTIONS:
        assert load_config_file(f"configs/experiments/micro_{name}.py").questions == (name,)
    assert load_config_file("configs/experiments/micro_all.py") == EVERYTHING
    with pytest.raises(UsageError, match="no variant 'two', only one, tiny"):
        load_config_file("configs/experiments/micro_errors.py:two")


def test_questions_share_the_nodes_of_the_micro_experiment():
    micro = {node.name: node for node in MicroExperiment(seeds=(0, 1, 2)).nodes()}
    nodes = {node.name: node for node in EVERYTHING.nodes()}
    shared = micro.keys() & nodes.keys()
    assert {"seed0/strong", "seed1/teacher", "seed2/grpo", "seed0/w2sr_p_test"} <= shared
    assert all(micro[name].config == nodes[name].config for name in shared)
    # What no section needs does not run.
    assert not {"seed0/report", "seed0/random_digits", "seed0/w2sr_n"} & nodes.keys()


def test_a_question_alone_has_the_nodes_that_it_has_among_all():
    nodes = {node.name: node.config for node in EVERYTHING.nodes()}
    for name in QUESTIONS:
        for node in variant_of(None, name).nodes():
            assert node.name == "report" or nodes[node.name] == node.config


def test_seeds_share_nothing_but_the_summaries():
    names = [node.name for node in EVERYTHING.nodes()]
    for node in EVERYTHING.nodes():
        if node.name.startswith("seed"):
            seed = node.name.split("/")[0]
            assert all(needed.split("/")[0] == seed for needed in references(node.config, names)), node.name


def test_students_differ_in_their_traces_and_their_base_alone():
    students = of_stage(EVERYTHING, "sft")
    assert len(students) > 100
    for name, student in students.items():
        at = "@" + name.split("/")[0] + ("/domains" if "/domains/" in name else "")
        assert student.data.problems == f"{at}/problems/train.jsonl"
        student.data.problems = student.data.traces = student.model = ""
        student.data.seed = 0
    assert len({repr(student) for student in students.values()}) == 1


def test_only_evaluation_reads_the_test_problems():
    for node in EVERYTHING.nodes():
        assert ("test.jsonl" in json.dumps(to_dict(node.config))) == (node.stage == "evaluate"), node.name


def test_every_claim_compares_arms_of_its_section_and_every_new_arm_has_a_claim():
    for name, question in QUESTIONS.items():
        for section in question(EVERYTHING, 0).sections:
            named = {arm for pair in section.claims.values() for arm in pair}
            assert named <= section.arms.keys()
            made = {arm for arm, node in section.arms.items() if node.startswith(name)}
            assert made - named <= {"forced", "grpo", "teacher_2", "teacher_3", "llama_teacher"}, section.name


def test_errors_are_put_into_correct_traces_at_their_rates():
    injected = {
        name.split("/")[-1]: config.inject
        for name, config in of_stage(variant_of("one", "errors"), "transform").items()
    }
    assert injected["slip_25_traces"] == InjectConfig(kind="slip", rate=0.25, modulus=100)
    assert len(injected) == 11
    assert {config.kind for config in injected.values()} == {"slip", "answer", "drop", "shuffle", "rule"}


def test_an_unknown_question_is_named():
    with pytest.raises(UsageError, match=r"config\.questions: 'why' is none of errors, supervision"):
        validate(QuestionsExperiment(questions=("why",)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of every question with models that learn nothing."""
    root = tmp_path_factory.mktemp("questions")
    return root, run.main(variant_of("tiny", *QUESTIONS), str(root))


@pytest.mark.slow
def test_a_tiny_run_has_a_section_for_every_question(tiny):
    root, status = tiny
    assert set(status.values()) == {"done"}
    report = read_json(root / "report" / "report.json")
    text = (root / "report" / "report.md").read_text()
    assert report["kind"] == "book"
    assert len(report["sections"]) == 8  # families have two, and one is what they are compared with
    for section in report["sections"]:
        assert f"## {section['title']}" in text
        assert section["claims"]
        assert all(sentence in text for sentence in section["claims"])
        assert all(claim["holds"] in (True, False, "not shown") for claim in section["claims"].values())
        assert section["trace_lab"]["sets"].keys() <= section["arms"].keys()
    page = (root / "report" / "report.html").read_text()
    assert len(page) < 5 * 2**20 / 3
    assert all(page.count(f"{section['title']}</a></h2>") == 1 for section in report["sections"])


@pytest.mark.slow
def test_a_second_run_reuses_everything_and_one_question_is_part_of_all(tiny):
    root, _ = tiny
    assert set(run.main(variant_of("tiny", *QUESTIONS), str(root)).values()) == {"reused"}
    alone = run.main(variant_of("tiny", "filtering"), str(root))
    assert {name for name, state in alone.items() if state == "done"} == {"report"}


@pytest.mark.slow
def test_a_student_of_an_ensemble_of_one_is_the_student_of_that_teacher(tiny, tmp_path):
    root, _ = tiny

    @dataclasses.dataclass(slots=True, kw_only=True)
    class One(QuestionsExperiment):
        def nodes(self):
            nodes = {node.name: node for node in MicroExperiment.nodes(self)}
            at = "@seed0"
            found = [nodes[f"seed0/{n}"] for n in ("problems", "weak", "strong", "teacher", "traces", "filter", "w2sr")]
            found.append(nodes["seed0/w2sr_test"])
            for copies in (1, 3):
                traces = (f"{at}/traces/traces.jsonl",) * copies
                name = f"ensemble_{copies}"
                config = TransformConfig(what="ensemble", ensemble="majority", traces=traces)
                parts = [
                    (name, "transform", config),
                    (f"{name}_filter", "filter", self.filter(0, at, name)),
                    (f"{name}_student", "sft", self.student(0, at, f"{at}/{name}_filter/all.jsonl")),
                    (f"{name}_test", "evaluate", self.evaluate(at, f"{at}/{name}_student/export")),
                ]
                found += [run.Node(name=f"seed0/{n}", stage=s, config=c) for n, s, c in parts]
            return found

    config = One(seeds=(0,))
    shrink(config)
    run.main(config, str(root))
    single = read_jsonl(root / "seed0/w2sr_test/predictions.jsonl", Prediction)
    for copies in (1, 3):
        place = root / f"seed0/ensemble_{copies}"
        assert (place / "traces.jsonl").read_bytes() == (root / "seed0/traces/traces.jsonl").read_bytes()
        assert read_jsonl(root / f"seed0/ensemble_{copies}_test/predictions.jsonl", Prediction) == single


@pytest.mark.slow
def test_all_compared_students_of_the_tiny_run_learn_from_as_many_traces(tiny):
    root, _ = tiny
    for name, config in of_stage(variant_of("tiny", *QUESTIONS), "sft").items():
        assert len(read_traces(config.data.traces.replace("@", f"{root}/"))) <= 8, name
    for kind in ("slip", "drop", "shuffle"):
        assert read_json(root / f"seed0/errors/{kind}_100_traces/counts.json")["touched"] > 0
