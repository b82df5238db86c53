"""Errors in traces: each kind on chains and on prose, rates, and edits that can be undone to the byte."""

import collections
import random
import re
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.records import EditedTrace, GradedTrace, Problem, RecordError, Trace
from w2sr_jax.core.trace_config import TRACE_ERRORS, InjectConfig
from w2sr_jax.grading.grade import grade
from w2sr_jax.micro.task import Chain
from w2sr_jax.traces import equations, errors
from w2sr_jax.traces import steps as steps_of_text
from w2sr_jax.traces.edits import edited, restored
from w2sr_jax.traces.steps import answer_span, reasoning_end, steps

CHAIN = r"<work>37+5=42*3=26-4=22\boxed{22}"
PROSE = (
    "Natalia sold 48 clips in April. In May she sold 48 / 2 = 24 clips. Each one costs 3 dollars. "
    r"Altogether she sold 48 + 24 = 72 clips. The answer is \boxed{72}."
)
LINES = "First, 3 \\times 4 = 12.\nThen 12 + 1 = 13 balls.\nThere are 2 boxes.\n\nSo the answer is $\\boxed{13}$."


def trace(response: str, problem_id: str = "p", teacher: str = "t") -> Trace:
    return Trace(
        problem_id=problem_id, sample=0, response=response, response_tokens=9, finish_reason="stop", teacher=teacher
    )


def chains(count: int) -> tuple[list[Trace], dict[str, Problem]]:
    rng = random.Random(count)
    made = [Chain.draw(rng, 1 + i % 5) for i in range(count)]
    problems = {f"p{i}": chain.problem(f"p{i}") for i, chain in enumerate(made)}
    return [trace(chain.worked(), f"p{i}") for i, chain in enumerate(made)], problems


def made(kind: str, response: str, gold: str, **options) -> EditedTrace:
    problem = Problem(id="p", problem="?", answer=gold)
    (found,), counts = errors.inject([trace(response)], {"p": problem}, InjectConfig(kind=kind, **options), seed=0)
    assert counts["touched"] == 1
    assert found.edit.startswith(kind)
    return found


def test_equations_are_found_in_chains_in_prose_and_in_latex():
    assert [CHAIN[e.start : e.end] for e in equations.find(CHAIN)] == ["37+5=42", "42*3=26", "26-4=22"]
    assert [PROSE[e.start : e.end] for e in equations.find(PROSE)] == ["48 / 2 = 24", "48 + 24 = 72"]
    (first, second) = equations.find(LINES)
    assert (first.operations, second.operations) == (("*",), ("+",))
    assert equations.find("2024-01-02 and x = 3") == []


@pytest.mark.parametrize(
    ("text", "modulus", "right"),
    [("2+3*4=14", 0, True), ("2+3*4=20", 0, True), ("2+3*4=15", 0, False), ("42*3=26", 100, True), ("7/0=1", 0, False)],
)
def test_an_equation_holds_left_to_right_or_with_products_first(text, modulus, right):
    (found,) = equations.find(text)
    assert equations.holds(found, modulus) is right


@pytest.mark.parametrize(
    ("text", "holding"),
    [
        ("-3 + 5 = 2", [True]),
        ("(-3) + 5 = 2 and 5 - (-3) = 8", [True, True]),
        ("3 - 5 = -2", [True]),
        ("3 - 5 = −2 + 4 = 2", [True, True]),
        ("3 * -2 = 6", [False]),
        ("so 1/2 + 1/3 = 5/6.", [True]),
        ("1/2 + 1/3 = 5/7", [False]),
        ("6*8 = 48/2 = 24", [True, True]),
        ("- 3 + 4 = 7\n* 2 + 2 = 4, **1 + 1 = 2**, it is 5 + 1 = 6 - or not", [True] * 4),
    ],
)
def test_signs_and_fractions_are_read_as_they_are_written(text, holding):
    assert [equations.holds(e) for e in equations.find(text)] == holding


@pytest.mark.parametrize(
    "text",
    [
        "2^3 + 1 = 9",
        "y^2 + 3 + 4 = 16",
        "5 + 2x + 3 + 4 = 20",
        "2x3 + 4 = 7",
        "(1 + 2) + 3 + 4 = 10",
        r"\frac{1}{2} + 3 + 4 = 7.5",
        r"2 \cdot x + 3 + 4 = 20",
        "x -3 + 5 = 12",
        "2 + 3 = 5x",
        "2 + 3 = 5^2 - 20",
        "6*7 = 21*2.",
        "2 + 3 = 4 + x",
    ],
)
def test_a_part_of_something_longer_is_no_equation(text):
    assert equations.find(text) == []


NAIVE = re.compile(r"(?<!\d)\d+(?:[-+*]\d+)+=(\d+)")  # all that chains of the embedded task need


@given(seed=st.integers(0, 10**6), operations=st.integers(1, 5), in_head=st.integers(1, 2), wrong=st.integers(0, 99))
def test_chains_of_the_embedded_task_are_read_as_chains(seed, operations, in_head, wrong):
    text = Chain.draw(random.Random(seed), operations).worked(in_head)
    if wrong < 50:  # a value that is off, and a chain that was cut off by its answer
        text = re.sub(r"=\d\d", f"={wrong:02d}", text, count=1)
        text = text.replace("\\boxed", "+2\\boxed")
    expected, at = [], 0
    while match := NAIVE.search(text, at):
        expected.append((match.start(), len(re.findall("[-+*]", match[0])), match.start(1), match.end()))
        at = match.start(1)
    end = answer_span(text)[0]
    for found in (equations.find(text), equations.find(text, end)):
        assert [(e.start, len(e.operations), e.result, e.end) for e in found] == expected
        assert all(e.plain for e in found)


def test_only_plain_equations_get_errors():
    problem = Problem(id="p", problem="?", answer="2")
    text = r"3 - 5 = -2 so 1/2 + 1/2 = 2/2 \boxed{2}"
    (same,), counts = errors.inject([trace(text)], {"p": problem}, InjectConfig(kind="slip"), 0)
    assert (same.response, counts["impossible"]) == (text, 1)


def test_what_follows_goes_on_from_a_changed_value():
    first = equations.find(CHAIN)[0].result
    assert equations.rewrite(CHAIN, {first: 1}, modulus=100) == r"<work>37+5=43*3=29-4=25\boxed{25}"
    assert equations.rewrite(CHAIN, {first: 1}, modulus=100, carry=False) == r"<work>37+5=43*3=26-4=22\boxed{22}"
    first = equations.find(PROSE)[0].result
    changed = equations.rewrite(PROSE, {first: 3})
    assert "48 / 2 = 27 clips" in changed
    assert "48 + 27 = 75 clips. The answer is \\boxed{75}." in changed


def test_a_step_that_was_off_stays_off_by_as_much():
    assert equations.rewrite("1+1=3+1=4", {4: 1}) == "1+1=4+1=5"
    assert equations.rewrite("1+1=2+1=7", {4: 1}) == "1+1=3+1=8"


def test_values_keep_their_width_and_their_decimals():
    assert equations.rewrite("99+4=03+2=05", {5: -1}, modulus=100) == "99+4=02+2=04"
    assert equations.rewrite("1.5*2=3.00", {6: 1}) == "1.5*2=4.00"
    assert equations.rewrite("10/4=2.5", {5: 1}) == "10/4=3.5"


def test_numbers_of_texts_that_loop_end_nothing():
    digits = "7" * 5000
    assert equations.find(f"1+{digits}=5 and 10/3=3.{digits}") == []
    text = "1*1=" * 400 + r"1 \boxed{1}"  # a first result of 10 makes 100, 10,000 and so on
    assert errors.rule(text, random.Random(0), InjectConfig()) is None
    assert errors.rule(text, random.Random(0), InjectConfig(modulus=100)) is not None


def test_steps_are_lines_or_sentences_or_equations():
    assert [CHAIN[slice(*s)] for s in steps(CHAIN)] == ["+5=42", "*3=26", "-4=22"]
    assert len(steps(PROSE)) == 4
    assert [LINES[slice(*s)].strip()[:4] for s in steps(LINES)] == ["Firs", "Then", "Ther"]
    assert steps(r"\boxed{5}") == steps(r"<work>37+5=42\boxed{42}") == []


def test_a_line_without_a_full_stop_is_a_step_like_sentences_beside_it():
    text = "We have A. Then B without an end\nSo C. Thus \\boxed{5}"
    assert [text[slice(*s)] for s in steps(text)] == ["We have A. ", "Then B without an end\n", "So C. "]


@settings(deadline=None, max_examples=300)
@given(
    text=st.text(alphabet="aB1+=. !?\n\\", max_size=40),
    ending=st.sampled_from(["", r"\boxed{7}"]),
    seed=st.integers(0, 9),
)
def test_steps_leave_nothing_out_and_a_shuffle_keeps_every_one_of_them(text, ending, seed):
    text += ending
    found = steps(text)
    pieces = [text[slice(*s)] for s in found]
    if not found:
        return
    assert "".join(pieces) == text[found[0][0] : found[-1][1]]
    new, what = errors.shuffle(text, random.Random(seed), InjectConfig())
    order = [int(number) - 1 for number in what.rpartition("order ")[2].split()]
    assert sorted(order) == list(range(len(pieces)))
    assert new == text[: found[0][0]] + "".join(pieces[i] for i in order) + text[found[-1][1] :]


def test_one_endless_line_is_looked_through_once(monkeypatch):
    looks = collections.Counter()
    for name in ("_LINE", "_SENTENCE"):
        pattern = getattr(steps_of_text, name)

        def match(*where, name=name, pattern=pattern):
            looks[name] += 1
            return pattern.match(*where)

        monkeypatch.setattr(steps_of_text, name, types.SimpleNamespace(match=match))
    text = "a b " * 15_000
    assert steps(text) == []
    assert looks == {"_LINE": 1, "_SENTENCE": 1}  # not once from every character on, up to the end each time
    assert reasoning_end(text + r"\boxed{1}") == len(text)


def test_a_slip_changes_one_value_and_the_answer_follows():
    found = made("slip", PROSE, "72")
    assert found.response != PROSE
    assert not grade(found.response, "72").correct or "48 + 24" in found.response
    isolated = made("slip", PROSE, "72", carry=False)
    assert grade(isolated.response, "72").correct
    assert sum(not equations.holds(e) for e in equations.find(isolated.response)) == 1


def test_a_wrong_answer_leaves_the_reasoning_alone():
    for text, gold in ((PROSE, "72"), (LINES, "13"), (r"so \boxed{(B)}", "B"), (r"\boxed{\frac{3}{4}}", r"\frac34")):
        found = made("answer", text, gold)
        start, _ = answer_span(text)
        assert found.response[:start] == text[:start]
        assert grade(text, gold).correct
        assert not grade(found.response, gold).correct


def answers(box: str, gold: str, **options) -> set[str]:
    """What stands in the box after an error in the answer, over seeds; what stood there where none was possible."""
    problem, config = Problem(id="p", problem="?", answer=gold), InjectConfig(kind="answer", **options)
    made = [errors.inject([trace(rf"so \boxed{{{box}}}")], {"p": problem}, config, seed)[0][0] for seed in range(40)]
    assert not any(grade(new.response, gold).correct for new in made if new.edit)
    return {new.response.removeprefix(r"so \boxed{").removesuffix("}") for new in made}


@pytest.mark.parametrize(
    ("box", "gold", "changed"),
    [
        ("f(2)=7", "7", r"f\(2\)=-?\d+"),
        ("x_1 = 5", "5", r"x_1 = -?\d+"),
        ("x_{1}=1,x_{2}=2", "1,2", r"x_\{1\}=1,x_\{2\}=-?\d+"),
        ("-5", "-5", r"-?\d+"),
        ("−5", "-5", r"-?\d+"),
        ("-3", "5", r"-?\d+"),
        ("x-5", "x-5", r"x[-+]\d+"),
        ("x + 5", "x+5", r"x [-+]\d+"),
        ("1/-2", "-1/2", r"-?\d+/-2"),
        ("5 = x", "x=5", r"-?\d+ = x"),
    ],
)
def test_another_answer_is_another_value_with_its_sign_not_another_name(box, gold, changed):
    found = answers(box, gold)
    assert box not in found
    assert all(re.fullmatch(changed, one) for one in found), found
    assert len(found) > 5


def test_an_answer_that_stays_right_or_has_no_end_is_left_alone():
    for box, gold in (("f(2)=x", "x"), ("7" * 5000, "5")):
        assert answers(box, gold) == {box}


def test_a_dropped_step_is_missing_and_shuffled_ones_are_all_there():
    dropped = made("drop", LINES, "13")
    assert dropped.now == ""
    assert dropped.was.strip() in LINES
    shuffled = made("shuffle", PROSE, "72")
    assert sorted(shuffled.response) == sorted(PROSE)
    assert shuffled.response.endswith(r"The answer is \boxed{72}.")


def test_the_wrong_rule_makes_every_product_off_by_one_and_nothing_else():
    found = made("rule", r"<work>02*3=06*2=12+1=13\boxed{13}", "13", modulus=100)
    assert found.response == r"<work>02*3=07*2=15+1=16\boxed{16}"
    (unchanged,), counts = errors.inject(
        [trace(r"1+1=2 \boxed{2}")], {"p": Problem(id="p", problem="?", answer="2")}, InjectConfig(kind="rule"), 0
    )
    assert (unchanged.edit, counts["touched"], counts["impossible"]) == ("", 0, 1)


@pytest.mark.parametrize("kind", TRACE_ERRORS)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_errors_touch_that_share_of_the_traces_and_say_so(kind, rate):
    traces, problems = chains(500)
    found, counts = errors.inject(traces, problems, InjectConfig(kind=kind, rate=rate, modulus=100), seed=3)
    touched = [new for old, new in zip(traces, found) if new.response != old.response]
    # Within binomial error: three standard deviations of 500 draws.
    assert abs(len(touched) - rate * 500) <= 3 * (500 * rate * (1 - rate)) ** 0.5
    assert touched == [new for new in found if new.edit]
    assert counts["touched"] == len(touched)
    assert [restored(new) for new in found] == traces


@pytest.mark.parametrize("kind", TRACE_ERRORS)
def test_problems_keep_their_answers_and_wrong_traces_stay_wrong(kind):
    traces, problems = chains(200)
    before = dict(problems)
    wrong = [trace(t.response.replace("boxed{", "boxed{9"), t.problem_id) for t in traces]
    found, _ = errors.inject(wrong, problems, InjectConfig(kind=kind, modulus=100), seed=0)
    assert problems == before
    assert not any(grade(new.response, problems[new.problem_id].answer).correct for new in found)


def test_errors_do_not_go_to_the_same_problems_of_every_teacher():
    traces = [trace(r"1+1=2 \boxed{2}", f"p{i}", teacher) for teacher in "ab" for i in range(100)]
    problems = {f"p{i}": Problem(id=f"p{i}", problem="?", answer="2") for i in range(100)}
    found, counts = errors.inject(traces, problems, InjectConfig(rate=0.5), 0)
    assert counts["touched"] == 100
    assert 65 < len({t.problem_id for t in found if t.edit}) < 85  # 75 by chance
    pairs = [(one.edit, other.edit) for one, other in zip(found[:100], found[100:]) if one.edit and other.edit]
    assert sum(one != other for one, other in pairs) > len(pairs) / 2


def test_a_higher_rate_touches_the_same_traces_and_more():
    traces, problems = chains(200)
    touched = [
        {t.problem_id for t in errors.inject(traces, problems, InjectConfig(rate=r, modulus=100), 1)[0] if t.edit}
        for r in (0.1, 0.3, 0.6)
    ]
    assert touched[0] < touched[1] < touched[2]
    assert touched[1] != {
        t.problem_id for t in errors.inject(traces, problems, InjectConfig(rate=0.3, modulus=100), 2)[0] if t.edit
    }


TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="0123456789+-*/=. \n\\boxed{}<work>,$"),
    st.lists(st.sampled_from([CHAIN, PROSE, LINES, "3*4=12\n", "é 1,000+2=1,002. ", "\\boxed{", "}"])).map("".join),
)


@settings(deadline=None, max_examples=300)
@given(response=TEXTS, kind=st.sampled_from(TRACE_ERRORS), seed=st.integers(0, 99), carry=st.booleans())
def test_every_edit_of_every_text_can_be_undone(response, kind, seed, carry):
    config = InjectConfig(kind=kind, carry=carry)
    original = trace(response)
    (found,), _ = errors.inject([original], {"p": Problem(id="p", problem="?", answer="72")}, config, seed)
    assert restored(found) == original
    assert (found.response != response) == bool(found.edit)


@given(old=st.text(), new=st.text())
def test_an_edit_records_no_more_than_what_changed(old, new):
    found = edited(trace(old), new, "x")
    assert restored(found).response == old
    assert found.response == new
    if found.was and found.now:
        assert found.was[0] != found.now[0]
        assert found.was[-1] != found.now[-1]


def test_an_edited_file_restores_the_original_one_to_the_byte(tmp_path):
    traces, problems = chains(50)
    write_jsonl(tmp_path / "a.jsonl", traces)
    write_jsonl(tmp_path / "b.jsonl", errors.inject(traces, problems, InjectConfig(rate=0.5, modulus=100), 0)[0])
    write_jsonl(tmp_path / "c.jsonl", [restored(t) for t in read_jsonl(tmp_path / "b.jsonl", EditedTrace)])
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() != (tmp_path / "b.jsonl").read_bytes()


def test_a_graded_trace_comes_back_without_its_grade_and_one_edited_twice_as_it_was_in_between():
    graded = {"extracted": "4", "correct": True, "grader": "g", "hygiene": []}
    original = GradedTrace.from_json(trace("2+2=4").to_json() | graded | {"schema": GradedTrace.schema})
    once = edited(original, "2+2=5", "slip", "length")
    twice = edited(once, "2+2=6", "slip")
    assert restored(once) == trace("2+2=4")
    assert (restored(twice).response, restored(twice).finish_reason) == ("2+2=5", "length")


def test_a_record_of_another_response_is_refused():
    found = edited(trace("1+1=2"), "1+1=3", "slip")
    with pytest.raises(RecordError, match="is not what stands at 4"):
        restored(EditedTrace.from_json(found.to_json() | {"now": "4"}))


def test_draws_of_slips_are_spread_over_the_steps():
    traces, problems = chains(300)
    found, _ = errors.inject(traces, problems, InjectConfig(kind="drop", modulus=100), 0)
    numbers = collections.Counter(t.edit for t in found if t.edit.endswith("of 5"))
    assert len(numbers) == 5
