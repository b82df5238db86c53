"""The open questions at micro scale: their nodes are valid, fair and shared, and a tiny run answers all of them."""

import dataclasses
import json

import pytest

from benchmarks import questions_table
from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.config import to_dict, validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import read_json, read_jsonl
from w2sr_jax.core.records import Prediction
from w2sr_jax.core.references import references
from w2sr_jax.core.trace_config import InjectConfig, TransformConfig
from w2sr_jax.data.examples import read_traces
from w2sr_jax.micro.experiment import CLAIMS, MicroExperiment, shrink
from w2sr_jax.micro.questions.base import shared
from w2sr_jax.micro.questions.experiment import QUESTIONS, QuestionsExperiment, variant_of
from w2sr_jax.reporting import tables
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
    # Its controls are run, too: without them the paper's comparisons of teachers and of traces have no answer.
    assert {"seed0/w2sr_n_test", "seed1/non_reasoner_taught_test", "seed2/random_digits_test"} <= shared
    # What no section needs does not run.
    assert not {"seed0/report", "seed0/weak_base_test"} & nodes.keys()


def test_the_section_that_all_compare_with_answers_the_papers_three_experiments():
    section = shared()
    assert section.claims.items() >= CLAIMS.items()
    assert {"w2sr", "w2sr_p", "w2sr_n", "non_reasoner_taught", "random_digits", "forced", "grpo"} <= section.arms.keys()
    assert section.routes.keys() == {*section.traces, "grpo"}


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
def test_the_documents_tables_are_printed_from_a_finished_run(tiny):
    root, _ = tiny
    text = questions_table.main(root)
    report = read_json(root / "report" / "report.json")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    for section in report["sections"]:
        assert f"## {section['title']}" in text
        assert {*section["arms"], *section["claims"]} <= {*rows}
    having = sum("w2sr_p" in section["arms"] for section in report["sections"])
    assert 1 <= rows.count("w2sr_p") <= 2 < having  # what sections share is shown once; another domain has its own
    shared_arms = report["sections"][0]["arms"]
    assert f"| w2sr_n | {100 * shared_arms['w2sr_n']['micro']['pass_at_1']:.1f} |" in text


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


def test_every_arm_of_a_question_learns_from_a_file_of_its_own():
    for name, question in QUESTIONS.items():
        for section in question(EVERYTHING, 0).sections:
            students = {arm: node for arm, node in section.arms.items() if arm in section.traces}
            assert len({*students.values()}) == len(students), name
            assert len({*section.traces.values()}) == len(section.traces), name
    # Each student is evaluated on its own weights, made from its own traces.
    nodes = {node.name: node.config for node in EVERYTHING.nodes()}
    trained = {name: config for name, config in nodes.items() if f"{name}_test" in nodes and hasattr(config, "data")}
    assert len(trained) > 100
    assert all(nodes[f"{name}_test"].model == f"@{name}/export" for name in trained)
    assert len({(config.model, config.data.traces) for config in trained.values()}) == len(trained)


@pytest.mark.slow
def test_every_arm_of_a_question_learns_from_different_traces(tiny):
    root, _ = tiny
    for section in read_json(root / "report" / "report.json")["sections"]:
        title = section["title"]
        if title == "Which traces should be kept?":
            continue  # such models' traces have equal scores, of which every selection takes the same ones
        files = next(
            node.config.trace_sets
            for node in variant_of("tiny", *QUESTIONS).nodes()
            if node.stage == "report" and node.config.title == f"{title} (seed 0)"
        )
        texts = dict[str, str]()
        for path in set(files.values()):  # stand-ins, for want of right answers, may be one file
            traces = read_traces(path.replace("@", f"{root}/"))
            if len(traces) == 8:  # of fewer, all that there are may have been chosen twice
                texts[path] = "\n".join(f"{t.teacher} {t.problem_id} {t.sample} {t.response}" for t in traces)
        assert len({*texts.values()}) == len(texts), title


@pytest.mark.slow
def test_all_compared_students_of_the_tiny_run_learn_from_as_many_traces(tiny):
    root, _ = tiny
    everything = variant_of("tiny", *QUESTIONS)
    short = dict[str, int]()
    for name, config in of_stage(everything, "sft").items():
        size = len(read_traces(config.data.traces.replace("@", f"{root}/")))
        if size != everything.traces:
            made, file = config.data.traces.removeprefix("@").rsplit("/", 1)
            counts = read_json(root / made / "counts.json")
            stated = counts["size"][file.removesuffix(".jsonl")] if "size" in counts else counts["kept"]
            wanted = counts["wanted"] if "kept" in counts else counts["wanted"][file.removesuffix(".jsonl")]
            assert (size, wanted) == (stated, everything.traces), name
            short[name.split("/")[-1]] = size
    for section in read_json(root / "report" / "report.json")["sections"]:
        stated = {arm: pairs[0][0] for arm, pairs in section["trace_sizes"].items()}
        assert {arm for arm, size in stated.items() if size != everything.traces} <= short.keys()
        assert any("equally many" in note for note in tables.notes(section)) == (len(set(stated.values())) > 1)
    for kind in ("slip", "drop", "shuffle"):
        assert read_json(root / f"seed0/errors/{kind}_100_traces/counts.json")["touched"] > 0
