"""The second grader: what it reads, which leniencies it keeps, and that nothing makes it raise or hang."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2sr_jax.grading.expression import Unreadable, values
from w2sr_jax.grading.second import second_equal

SAME = [
    (r"\dfrac{1}{2}", r"\frac12"),
    (r"\frac{3}{6}", "0.5"),
    ("1,234", "1234"),
    (r"1{,}234", "1234"),
    (r"5\text{ cm}", "5"),
    ("5 apples", "5"),
    (r"45^\circ", "45"),
    (r"\$5.00", "5"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"),
    (r"x^2+2x+1", "(x+1)^2"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\sqrt[3]{-8}", "-2"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
    (r"1\frac{1}{2}", "1.5"),
    (r"\log_2 8", "3"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\sin^{-1} x", r"\arcsin x"),
    (r"\tan 45 \cdot 2", r"2\tan45"),
    (r"\binom{5}{2}", "10"),
    ("5!", "120"),
    (r"|{-3}|", "3"),
    ("x_1+x_2", "x_2+x_1"),
    ("f(2)+1", "1+f(2)"),
    ("x(x+1)", "x^2+x"),
    (r"\sin\pi", "0"),
    (r"e^{i\pi}", "-1"),
    (r"1.6\times 10^{-19}", "1.6e-19"),
    (r"\text{Evelyn}", "evelyn"),
    ("x=5", "5"),
    ("y=2x+3", "2x-y+3=0"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&\frac{8}{2}\end{bmatrix}"),
    (r"\{1,2\}", "1,2"),
    (r"\textbf{(073)}", "73"),
    # Leniencies of its kind, which the main grader does not share.
    (r"50\%", "0.5"),
    ("50", "0.5"),
    ("10001", "10000"),
    ("[1,2]", "(1,2)"),
]
DIFFERENT = [
    ("1", "2"),
    ("", "5"),
    ("5", ""),
    ("1.001", "1"),
    ("x+1", "x+2"),
    ("xy", "x+y"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    ("(1,2)", "1"),
    ("1-1/e", "1+1/e"),
    ("3x-y+13=0", "0"),
    ("2,3,4", "1,2,3"),
    (r"5\mathrm{i}", "5"),
    ("1e-13", "2e-13"),
    (r"\text{east}", r"\text{west}"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("x=5", "y=5x"),
    ("I(0)", "0"),
    ("0", "4.6e-24"),
]


@pytest.mark.parametrize(("given", "gold"), SAME)
def test_equal_answers(given, gold):
    assert second_equal(given, gold)


@pytest.mark.parametrize(("given", "gold"), DIFFERENT)
def test_different_answers(given, gold):
    assert not second_equal(given, gold)


@pytest.mark.parametrize(
    "text", ["", "f(", ")", "1+", r"\frac{1}", r"\foo", "1/0", "171!", "9^{9^{9}}", "x^", r"\sqrt", "a_", "(" * 90, "é"]
)
def test_what_has_no_value_is_unreadable(text):
    with pytest.raises(Unreadable):
        values(text)


def test_a_variable_has_the_same_value_in_both_texts_and_another_at_each_point():
    assert values("x") == values("x")
    assert len(set(values("x"))) == 3
    assert values("x") != values("y")


HARD = [
    "9**9**9**9",
    "{" * 1900,
    "(" * 1900 + ")" * 1900,
    "1," * 990,
    "\\frac" * 300,
    "-" * 1999,
    "x" * 1999,
    "7" * 1999,
]


@pytest.mark.parametrize("text", HARD)
def test_hard_inputs_take_no_time(text):
    begun = time.monotonic()
    assert not second_equal(text, "5")
    assert not second_equal("5", text + text)
    assert time.monotonic() - begun < 2


PIECES = [
    r"\frac",
    r"\sqrt",
    "{",
    "}",
    "1",
    ".5",
    "x",
    "^",
    "_",
    "(",
    ")",
    ",",
    "=",
    r"\pi",
    "!",
    "|",
    "%",
    r"\\",
    "&",
    " ",
]


@settings(max_examples=500, deadline=None)
@given(*[st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)] * 2)
def test_nothing_raises_and_an_answer_equals_itself_or_has_no_text(one, two):
    assert second_equal(one, two) in (True, False)
    assert second_equal(one, one) or not one.strip() or not second_equal(one + "5", one)
