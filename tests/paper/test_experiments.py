"""What the experiments of configs/paper/ are made of: models by hub id, the recipe, arms that are evaluated alike."""

import json
import re

import pytest

from tests.test_configs import ALL, QUESTIONS, ROOT, SIX, VARIANTS, load
from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.references import split_reference
from w2sr_jax.paper.models import QWEN_TEACHERS, SIZES, STUDENTS, TEACHERS
from w2sr_jax.stages.report import parameters

PAPER = [(file, variant) for file, variant in ALL if file.startswith("paper/")]
OWN = ("paper/qwen25.py", "paper/qwen25_math.py", "paper/llama31.py")  # files of the paper's own experiments
PAIRS = [(file, variant) for file, variant in PAPER if file in OWN]


def stages(config, stage):
    return {node.name: node.config for node in config.nodes() if node.stage == stage}


def the_report(config):
    (report,) = stages(config, "report").values()
    return report


def test_what_is_no_variant_is_answered_with_the_variants_there_are():
    for file in (*OWN, "paper/families.py"):
        with pytest.raises(UsageError) as error:
            load(file, "nothing")
        student = VARIANTS[file][1]
        for wrong in (f"{student}-from-", f"{student}-from-70b", f"{student}-vs-", f"{student}-vs-70b"):
            with pytest.raises(UsageError, match="no variant"):
                load(file, wrong)
        found = re.search(r"only STUDENT\[-from-TEACHER\]\[-vs-TEACHER\]: (.*) \(W2SR_DEBUG", str(error.value))[1]
        assert found.split(", ") == [variant for variant in VARIANTS[file] if "-from-" in variant]
    for name, (names, rest) in QUESTIONS.items():
        wrong = ["nothing", f"{names[0]}/70b", f"{names[0]}/7b-from-70b"]
        for variant in wrong if rest else [*wrong, f"{names[0]}/7b-from-7b"]:
            with pytest.raises(UsageError, match=rf"only NAME\[/STUDENT.*NAME {', '.join(names)}; STUDENT 7b, 14b"):
                load(f"paper/{name}.py", variant)


@pytest.mark.parametrize(
    ("file", "student", "teacher"),
    [
        *(("qwen25", student, "1.5b") for student in ("7b", "14b", "32b")),
        *(("qwen25_math", "math-7b", "1.5b"), ("llama31", "8b", "1.5b")),
        *(("families", "7b", "llama-8b"), ("families", "8b", "1.5b")),
    ],
)
def test_a_student_without_a_teacher_has_the_default_of_its_file(file, student, teacher):
    assert load(f"paper/{file}.py", student) == load(f"paper/{file}.py", f"{student}-from-{teacher}")
    rival = f"-vs-{'llama-8b' if teacher == 'llama-8b' else '32b'}"
    assert load(f"paper/{file}.py", student + rival) == load(f"paper/{file}.py", f"{student}-from-{teacher}{rival}")


@pytest.mark.parametrize(("file", "variant"), PAIRS)
def test_a_pair_names_its_models_by_hub_id_and_follows_the_recipe(file, variant):
    config = load(file, variant)
    assert re.fullmatch(r"hkust-nlp/Qwen-2.5-[\w.-]+-SimpleRL-Zoo", config.reasoner)
    assert config.reasoner == config.non_reasoner.replace("Qwen/Qwen2.5", "hkust-nlp/Qwen-2.5") + "-SimpleRL-Zoo"
    assert config.problems == "hf:hkust-nlp/SimpleRL-Zoo-Data:simplelr_qwen_level3to5/train"
    assert config.benchmarks == tuple(f"bench:{name}" for name in SIX)
    students = stages(config, "sft")
    assert list(students) == ["w2sr", "w2sr_p", "w2sr_n", "non_reasoner_taught"]
    for student in students.values():
        assert (student.data.max_length, student.data.batch_size, student.data.packing) == (4096, 128, False)
        assert (student.optimizer.schedule, student.optimizer.warmup_ratio) == ("cosine", 0.1)
        assert student.train.dtype == "bfloat16"
        assert (student.optimizer.learning_rate, student.epochs) == ((2e-5, 10) if "math" in file else (1e-5, 5))
    assert [s.data.traces for s in students.values()] == [
        "@filter/all.jsonl",
        "@filter/correct.jsonl",
        "@filter/incorrect.jsonl",
        "@non_reasoner_filter/all.jsonl",
    ]


@pytest.mark.parametrize(("file", "variant"), PAIRS)
def test_the_ceiling_of_a_pair_is_simplerl_s_recipe(file, variant):
    (grpo,) = stages(load(file, variant), "grpo").values()
    assert (grpo.prompts_per_step, grpo.minibatch_prompts, grpo.epochs_per_step) == (1024, 256, 1)
    assert (grpo.sampling.n, grpo.sampling.temperature) == (8, 1.0)
    assert grpo.sampling.max_tokens == (3072 if "math" in file else 8192)
    assert (grpo.loss.kl, grpo.loss.entropy) == (1e-3 if variant.startswith("32b") else 1e-4, 1e-3)
    assert (grpo.loss.clip_low, grpo.loss.clip_high, grpo.loss.aggregate) == (0.2, 0.2, "token_mean")
    optimizer = grpo.optimizer
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.weight_decay) == (5e-7, "constant", 1e-2)
    assert (optimizer.b1, optimizer.b2, optimizer.clip_norm) == (0.9, 0.999, 1.0)


@pytest.mark.parametrize(("file", "variant"), PAPER)
def test_all_compared_arms_of_an_experiment_are_evaluated_alike(file, variant):
    config = load(file, variant)
    evaluations, report = stages(config, "evaluate"), the_report(config)
    places = {arm: [evaluations[place.removeprefix("@")] for place in found] for arm, found in report.arms.items()}
    assert {len(found) for found in places.values()} == {len(config.benchmarks)}
    assert len(evaluations) == len(places) * len(config.benchmarks)
    compared = {e.protocol for arm, found in places.items() if arm not in report.baselines for e in found}
    assert len(compared) == 1
    shown = [arm for arm in places if arm.startswith("teacher")]
    assert report.baselines == (() if config.teacher_template == config.template else tuple(shown))
    assert {arm for pair in report.claims.values() for arm in pair} <= set(places) - set(report.baselines)
    assert len(set(report.claims.values())) == len(report.claims) > 0


@pytest.mark.parametrize(("file", "variant"), PAPER)
def test_every_arm_s_route_ends_in_its_training_and_begins_with_what_wrote_its_traces(file, variant):
    config = load(file, variant)
    nodes, report = {node.name: node for node in config.nodes()}, the_report(config)
    students = stages(config, "sft")
    assert set(report.routes) == set(students) | set(stages(config, "grpo"))
    assert report.trace_sets == {arm: student.data.traces for arm, student in students.items()}
    for arm, route in report.routes.items():
        made_of = [nodes[split_reference(place, nodes)[0]] for place in route]
        assert made_of[-1].name == arm
        assert made_of[0].stage == ("grpo" if arm == "grpo" else "transform" if arm == "human" else "distill")
    assert all(parameters(model) for model in report.teachers.values())


@pytest.mark.parametrize(("file", "variant"), PAIRS)
def test_a_published_ceiling_replaces_training_one(file, variant):
    config = load(file, variant)
    config.ceiling = "published"
    assert not stages(config, "grpo")
    assert the_report(config).arms["grpo"][0] == "@eval/grpo_published/0"
    assert stages(config, "evaluate")["eval/grpo_published/0"].model == config.published_ceiling
    assert config.published_ceiling.endswith("-SimpleRL-Zoo")
    config.published_ceiling = ""
    with pytest.raises(UsageError, match="ceiling=published needs the id"):
        validate(config)


def test_every_experiment_says_what_to_compare_with():
    for file in {file for file, _ in PAPER}:
        text = (ROOT / file).read_text()
        assert text.count("    Compare: ") == text.count("    Chips: ") > 0
    assert "43.77" in load("paper/qwen25_math.py").published
    assert "56.25 %" in (ROOT / "paper/scale.py").read_text()


@pytest.mark.parametrize("student", STUDENTS)
def test_the_published_rows_of_a_student_are_those_of_the_table(student):
    table = json.loads((ROOT / "paper" / "simplerl_zoo.json").read_text())
    row = table["rows"]["llama-8b" if student == "8b" else student]
    base, after = (" ".join(map(str, row[arm])) for arm in ("base", "rl"))
    assert STUDENTS[student].published.endswith(f"SimpleRL-Zoo: base {base}, RL {after}")
    assert tuple(table["problems"]) == SIX


@pytest.mark.parametrize("rival", QWEN_TEACHERS)
def test_a_pair_takes_a_non_reasoner_of_another_size_and_changes_nothing_else(rival):
    config, plain = load("paper/families.py", f"7b-from-1.5b-vs-{rival}"), load("paper/families.py", "7b-from-1.5b")
    assert (config.reasoner, config.non_reasoner) == (plain.reasoner, TEACHERS[rival].non_reasoner)
    theirs = [load(f, f"{student}-from-0.5b-vs-32b") for f, student in zip(OWN, ("32b", "math-7b", "8b"))]
    assert {other.non_reasoner for other in theirs} == {"Qwen/Qwen2.5-32B"}
    claims = the_report(config).claims
    (sentence,) = (sentence for sentence, pair in claims.items() if pair == ("w2sr", "non_reasoner_taught"))
    small = "a small Reasoner (1.5B) teaches better than a large Non-Reasoner (32B)"
    assert (sentence == small) == (rival == "32b")
    assert ("of its size" in sentence) == (rival == "1.5b")
    assert config.trace_tokens == (3072 if rival == "math-7b" else 4096)  # what its context leaves
    config.trace_tokens = plain.trace_tokens
    config.non_reasoner, config.structure_claim = plain.non_reasoner, plain.structure_claim
    assert config == plain


def test_structure_against_scale_has_both_kinds_of_every_size_and_the_paper_s_claim():
    config = load("paper/scale.py", "every_size")
    arms = [f"{kind}_{size}" for size in SIZES for kind in ("reasoner", "non_reasoner")]
    assert list(stages(config, "sft")) == arms
    assert [node.model for node in stages(config, "distill").values()] == [
        getattr(TEACHERS[size], kind) for size in SIZES for kind in ("reasoner", "non_reasoner")
    ]
    report = the_report(config)
    sentence = "a small Reasoner (1.5B) teaches better than a large Non-Reasoner (32B)"
    assert report.claims[sentence] == ("reasoner_1.5b", "non_reasoner_32b")
    sizes = [parameters(report.teachers[arm]) for arm in arms]
    assert sizes == [1e9 * float(size.removesuffix("b")) for size in SIZES for _ in range(2)]


@pytest.mark.parametrize("entries", [(), ("no_model",), ("a=x", "a=y")])
def test_teachers_have_a_name_and_a_model_each(entries):
    config = load("paper/scale.py", "every_size")
    config.teachers = entries
    with pytest.raises(UsageError, match=r"config.teachers: expected NAME=MODEL of each, every name once"):
        validate(config)


def test_a_llama_teacher_is_asked_with_its_own_prompt_and_a_llama_student_too():
    config = load("paper/families.py", "7b-from-llama-8b")
    assert (config.reasoner, config.non_reasoner) == (
        "hkust-nlp/Llama-3.1-8B-SimpleRL-Zoo",
        "meta-llama/Llama-3.1-8B",
    )
    assert {node.template for node in stages(config, "distill").values()} == {"abel"}
    assert {node.data.template for node in stages(config, "sft").values()} == {"qwen-boxed"}
    assert the_report(config).baselines == ("teacher",)
    assert load("paper/families.py", "8b-from-1.5b") == load("paper/llama31.py", "8b-from-1.5b")
    assert the_report(load("paper/families.py", "8b-from-llama-8b")).baselines == ()
    for pair in ("7b-from-1.5b-vs-llama-8b", "7b-from-llama-8b-vs-7b"):  # no one prompt for both
        with pytest.raises(UsageError, match="no variant"):
            load("paper/families.py", pair)


def test_errors_are_put_into_the_correct_traces_at_each_rate_by_their_own_seed():
    config = load("paper/errors.py", "every_kind")
    config.rates, config.error_seed = (0.1, 1.0), 7
    made = stages(config, "transform")
    assert list(made) == [f"{k}_{r}_traces" for k in ("slip", "answer", "drop", "shuffle", "rule") for r in (10, 100)]
    assert {(m.traces, m.seed, m.problems) for m in made.values()} == {
        (("@filter/correct.jsonl",), 7, config.problems),
    }
    assert made["drop_10_traces"].inject.rate == 0.1
    config.rates = (0.0,)
    with pytest.raises(UsageError, match=r"rates in \(0, 1\]"):
        validate(config)


def test_supervision_and_filtering_give_every_student_as_many_traces():
    for file, variant in (("paper/supervision.py", "every_kind"), ("paper/filtering.py", "every_score")):
        config = load(file, variant)
        drawn = {f"@{n}/traces.jsonl" for n, node in stages(config, "transform").items() if node.select.size == 4000}
        made_of = {n: node.traces for n, node in stages(config, "transform").items()}
        for student in stages(config, "sft").values():
            node = student.data.traces.removeprefix("@").removesuffix("/traces.jsonl")
            assert student.data.traces in drawn or set(made_of[node]) <= drawn


def test_human_solutions_are_learnt_with_their_own_problems():
    config = load("paper/supervision.py", "human")
    students = stages(config, "sft")
    assert (
        students["human"].data.problems == config.solutions == stages(config, "transform")["solutions_traces"].problems
    )
    assert students["matched"].data.problems == config.problems


def test_an_ensemble_takes_from_the_raw_traces_of_all_its_teachers():
    config = load("paper/ensembles.py", "every_way")
    made = stages(config, "transform")
    assert [m.ensemble for m in made.values()] == ["mix", "majority", "agreement", "hygiene"]
    assert {m.traces for m in made.values()} == {
        tuple(f"@reasoner_{size}_traces/traces.jsonl" for size in ("0.5b", "1.5b", "7b"))
    }


def test_a_domain_is_learnt_and_tested_on_problems_of_two_seeds():
    for variant in QUESTIONS["domains"][0][:-1]:
        config = load("paper/domains.py", variant)
        assert (config.problems, config.benchmarks) == (f"gym:{variant}:8000:1", (f"gym:{variant}:500:2",))
        read = [
            *stages(config, "distill").values(),
            *stages(config, "filter").values(),
            *stages(config, "grpo").values(),
        ]
        assert {node.problems for node in read} == {config.problems}


@pytest.mark.parametrize(
    ("picked", "beside"),
    [
        *((("paper/errors.py", name), ("paper/qwen25.py", "7b-from-1.5b")) for name in QUESTIONS["errors"][0]),
        (("paper/supervision.py", "every_kind"), ("paper/qwen25.py", "7b-from-1.5b")),
        (("paper/filtering.py", "every_score/14b-from-7b"), ("paper/qwen25.py", "14b-from-7b")),
        (("paper/ensembles.py", "every_way"), ("paper/scale.py", "every_size/14b")),
    ],
)
def test_experiments_of_one_student_and_its_teachers_share_what_they_have_in_common(picked, beside):
    ours, theirs = ({node.name: node for node in load(*one).nodes()} for one in (picked, beside))
    shared = set(ours) & set(theirs)
    assert "eval/base/0" in shared
    assert shared & {"eval/teacher/0", "reasoner_1.5b_filter"}
    assert not [name for name in shared if ours[name] != theirs[name]]  # so that none is made again
