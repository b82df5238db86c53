import json
import os
from pathlib import Path

import pytest

from w2sr_jax.core.boxes import last_box
from w2sr_jax.core.files import write_jsonl
from w2sr_jax.core.records import Problem, RecordError
from w2sr_jax.data.tasks import load_problems

# Our own problems, with the fields that each source publishes.
AIME = {
    "id": 60,
    "problem": "Add.",
    "solution": "s",
    "answer": "204",
    "url": "x/2024_AIME_I_Problems/1",
    "question": "q",
}
AMC = {"id": 3, "problem": "Add.", "answer": 27.0, "url": "x/2023_AMC_12A_Problems/Problem_1", "question": "q"}
MATH500 = {
    "problem": "Add.",
    "solution": r"It is $\boxed{\frac{1}{2}}.$",
    "answer": r"\frac{1}{2}",
    "subject": "Algebra",
    "level": 2,
    "unique_id": "test/algebra/7.json",
}
MINERVA = {
    "problem": "How long?",
    "solution": r"First \boxed{1}, so \boxed{\frac{a}{b}} m.",
    "type": "Physics",
    "idx": 5,
}
OLYMPIAD = {
    "id": 1606,
    "subfield": "Algebra",
    "context": None,
    "question": "Solve.",
    "solution": ["s"],
    "final_answer": ["$69$,$84$"],
    "is_multiple_answer": True,
    "unit": "km",
    "answer_type": "Numerical",
    "error": None,
}
GSM8K = {"question": "How many?", "answer": "1,000 * 2 = <<1000*2=2000>>2000\n#### 2,000", "idx": 12}
MATH_TRAIN = {"problem": "Add.", "level": "Level 5", "type": "Algebra", "solution": r"$\boxed{7}$"}
SIMPLERL = {"question": "Add.", "gt_answer": "7", "level": 3, "subject": "Algebra"}

COUNTS = {"aime24": 30, "amc23": 40, "math500": 500, "minerva_math": 272, "olympiadbench": 675, "gsm8k": 1319}
FOLDER = Path(os.environ.get("W2SR_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks"))


@pytest.fixture
def save(tmp_path):
    def write(*rows, name="file.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (AIME, Problem(id="aime24/60", problem="Add.", answer="204", source="aime24")),
        (AMC, Problem(id="amc23/3", problem="Add.", answer="27", source="amc23")),
        (
            MATH500,
            Problem(
                id="math500/test/algebra/7.json", problem="Add.", answer=r"\frac{1}{2}", source="math500", level="2"
            ),
        ),
        (MINERVA, Problem(id="minerva_math/5", problem="How long?", answer=r"\frac{a}{b}", source="minerva_math")),
        (OLYMPIAD, Problem(id="olympiadbench/1606", problem="Solve.", answer="69,84", source="olympiadbench")),
        (GSM8K, Problem(id="gsm8k/12", problem="How many?", answer="2000", source="gsm8k")),
        (MATH_TRAIN, Problem(id="math/0", problem="Add.", answer="7", source="math", level="5")),
        (SIMPLERL, Problem(id="simplerl/0", problem="Add.", answer="7", source="simplerl", level="3")),
        (
            {"problem": "p", "answer": 4, "solution": "s"},
            Problem(id="problem_answer/0", problem="p", answer="4", source="problem_answer"),
        ),
    ],
    ids=lambda value: value.source if isinstance(value, Problem) else "",
)
def test_a_source_is_recognised_by_its_fields(row, expected, save):
    assert load_problems(save(row, name="any.jsonl")) == [expected]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["2"], "2"),
        (["$-1$", "$2$"], "-1, 2"),
        (["$a=2$, $a=-6-4 \\sqrt{2}$"], r"a=2, a=-6-4 \sqrt{2}"),
        (["$221,$8$"], "221,8"),
        ([r"$(-\infty, 0) \cup\{1\}$."], r"(-\infty, 0) \cup\{1\}"),
        (["$f(x)=ax$, where $a$ is an integer"], "$f(x)=ax$, where $a$ is an integer"),
        ([r"$1,2$ and $3$"], "$1,2$ and $3$"),
    ],
)
def test_an_olympiad_answer_becomes_plain_latex_unless_words_are_part_of_it(answers, expected, save):
    assert load_problems(save(OLYMPIAD | {"final_answer": answers}))[0].answer == expected


def test_the_context_of_a_question_stands_before_it(save):
    assert load_problems(save(OLYMPIAD | {"context": "Let x=1."}))[0].problem == "Let x=1.\nSolve."


@pytest.mark.parametrize(
    ("solution", "answer"), [(r"So $\boxed 3$.", "3"), (r"$\fbox{4}$", "4"), (r"$\boxed 3$, no: $\boxed{5}$", "5")]
)
def test_a_worked_solution_may_box_its_answer_in_the_ways_of_math(save, solution, answer):
    assert load_problems(save(MATH_TRAIN | {"solution": solution}))[0].answer == answer


@pytest.mark.parametrize(("published", "answer"), [(27.0, "27"), (2.5, "2.5"), (3, "3"), (" 4 ", "4")])
def test_a_number_is_written_as_people_write_it(published, answer, save):
    assert load_problems(save(AMC | {"answer": published}))[0].answer == answer


def test_our_own_problems_are_read_as_written(tmp_path):
    problems = [
        Problem(id="a", problem="p", answer="1", source="s", level="2", verifier="exact"),
        Problem(id="b", problem="q", answer="2"),
    ]
    write_jsonl(tmp_path / "problems.jsonl", problems)
    assert load_problems(str(tmp_path / "problems.jsonl")) == problems


def test_our_own_problems_may_leave_out_the_schema(save):
    assert load_problems(save({"id": "a", "problem": "p", "answer": "1"})) == [Problem(id="a", problem="p", answer="1")]


def test_a_limit_keeps_the_first_problems(save):
    path = save(*(GSM8K | {"idx": i} for i in range(5)))
    assert [p.id for p in load_problems(path, limit=2)] == ["gsm8k/0", "gsm8k/1"]
    assert len(load_problems(path, limit=0)) == len(load_problems(path, limit=9)) == 5


def test_a_training_split_gets_ids_of_its_own(save):
    assert load_problems(save(GSM8K, name="gsm8k_train.jsonl"))[0].id == "gsm8k_train/12"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GSM8K, GSM8K], "line 2: id: 'gsm8k/12' is also on line 1"),
        ([GSM8K, {"question": "q", "idx": 1}], "line 2: answer: missing"),
        ([GSM8K | {"answer": "12"}], "line 1: answer: has no '#### RESULT'"),
        ([GSM8K | {"hint": "h"}], "line 1: hint: unknown field of gsm8k"),
        ([GSM8K | {"question": 3}], "line 1: question: expected str, got 3"),
        ([GSM8K | {"question": "  "}], "line 1: problem: empty"),
        ([GSM8K | {"answer": "#### "}], "line 1: answer: empty"),
        ([MATH500 | {"answer": ["1"]}], 'line 1: answer: expected a string or a number, got ["1"]'),
        ([MINERVA | {"solution": r"so \boxed{1"}], r"line 1: solution: its last \boxed{ANSWER} is never closed"),
        ([MINERVA | {"solution": "so 1"}], r"line 1: solution: has no \boxed{ANSWER}"),
        ([MATH_TRAIN, MATH_TRAIN | {"solution": r"\boxed{}"}], "line 2: answer: empty"),
        ([OLYMPIAD | {"final_answer": []}], "line 1: final_answer: expected a list of strings, got []"),
        ([{"text": "t"}], "line 1: text: not the fields of a known format: problem/1 (answer, id, problem); "),
        ([[1]], "line 1: expected an object, got list"),
        ([{"id": "a", "problem": "p"}], "line 1: answer: missing"),
        ([{"schema": "problem/1", "id": "a", "problem": "p", "answer": "1", "x": 1}], "line 1: x: unknown field"),
        ([{"schema": "trace/1", "problem_id": "a"}], "line 1: schema: expected 'problem/1', got 'trace/1'"),
        ([], "holds no problems"),
    ],
)
def test_a_bad_file_is_one_line_that_names_file_line_and_field(rows, message, save):
    path = save(*rows)
    with pytest.raises(RecordError) as error:
        load_problems(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_named_with_its_line(save, tmp_path):
    path = Path(save(GSM8K, GSM8K | {"idx": 13}))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RecordError, match=r"line 2: not JSON.*was it cut short"):
        load_problems(str(path), limit=1)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(RecordError, match=r"nowhere.jsonl: no such file"):
        load_problems(str(tmp_path / "nowhere.jsonl"))


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        (r"so $\boxed 5$.", "5"),
        (r"so \fbox{7}.", "7"),
        (r"\boxed{1} and \fbox{2}", "2"),
        (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
    ],
)
def test_a_solution_may_box_its_answer_in_any_way_that_the_grader_reads(solution, expected, save):
    assert load_problems(save(MATH_TRAIN | {"solution": solution}))[0].answer == expected == last_box(solution)


@pytest.mark.parametrize("name", [name for name in COUNTS if (FOLDER / f"{name}.jsonl").is_file()])
def test_a_published_benchmark_file_is_read_in_full(name):
    problems = load_problems(str(FOLDER / f"{name}.jsonl"))
    assert len(problems) == COUNTS[name]
    assert len({p.id for p in problems}) == COUNTS[name]
    assert {p.source for p in problems} == {name}
    assert all(p.id.startswith(f"{name}/") and p.verifier == "math" for p in problems)
    assert not any("####" in p.answer or r"\boxed" in p.answer for p in problems)
    if name in ("aime24", "amc23", "gsm8k"):
        assert all(p.answer.removeprefix("-").isdigit() for p in problems)
    assert all(p.level in list("12345") for p in problems) == (name == "math500")
