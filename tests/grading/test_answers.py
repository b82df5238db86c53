"""Extraction, and the normal forms of numbers."""

from fractions import Fraction

import pytest

from w2sr_jax.core.boxes import first_box, last_box
from w2sr_jax.grading.answers import extract
from w2sr_jax.grading.normal import key, plain_number


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"a \boxed{1} b \boxed{ 2 } c", "2"),
        (r"\boxed{1} \boxed{2", None),
        (r"\boxed", None),
        (r"\boxed{\text{a}\}b}", r"\text{a}\}b"),
        (r"\boxed \frac12", r"\frac12"),
        (r"$\boxed 15$.", "15"),
        (r"\boxedly \boxed{3} \boxedly", "3"),
        ("The answer is: **12**.", "12"),
        ("The answer is 3.5 cm. It is long.", "3.5 cm"),
        (r"Answer: \(x+1\), as claimed", "x+1"),
        ("The answer is $5$ apples", "5"),
        ("#### -1,234", "-1,234"),
        ("The answer is:\n5", "5"),
        ("The answer is\n\n$$\n\\frac{1}{2}\n$$\n\nas claimed.", "\\frac{1}{2}"),
        ("The answer is $18 because she had $20.", "$18"),
        ("The answer is 5, because x.", "5"),
        ("The answer is 72 clips, which is the total.", "72 clips"),
        ("The answer is $18 and $20.", "$18 and $20"),
        ("The answer is because of x", "because of x"),
        ("I answered 5", None),
        ("", None),
    ],
)
def test_the_answer_of_a_response(response, answer):
    assert extract(response) == answer


def test_first_and_last_box_are_told_apart():
    assert (first_box(r"\boxed{1} \boxed{2}"), last_box(r"\boxed{1} \boxed{2}")) == ("1", "2")
    assert (first_box(r"\boxed{1} \boxed{2"), last_box(r"\boxed{1} \boxed{2")) == ("1", None)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5", 5, ""),
        ("+5.", 5, ""),
        (".5", Fraction(1, 2), ""),
        ("1,234.5", Fraction(2469, 2), ""),
        ("12 345", 12345, ""),
        ("3/4", Fraction(3, 4), ""),
        (r"-\frac{3}{4}", Fraction(-3, 4), ""),
        (r"\frac{-3}{4}", Fraction(-3, 4), ""),
        (r"1 \frac{1}{2}", Fraction(3, 2), ""),
        ("1 1/2", Fraction(3, 2), ""),
        (r"2.5 \times 10^{3}", 2500, ""),
        ("10^3", 1000, ""),
        (r"\$18", 18, "$"),
        ("€18", 18, "€"),
        (r"\text{18 dollars}", 18, "dollar"),
        (r"0.1\overline{6}", Fraction(1, 6), ""),
        (r"5\text{ Hours}", 5, "h"),
        (r"5\text{ ms}", 5, "ms"),
        (r"18\%", 18, "%"),
        ("18 percent", 18, "%"),
        (r"90^{\circ}", 90, "degree"),
        (r"5\ \mathrm{km}/\mathrm{h}", 5, "km/h"),
        ("12 eggs", 12, "egg"),
    ],
)
def test_plain_numbers_are_read_exactly(text, value, unit):
    number = plain_number(text)
    assert number is not None
    assert (number.value, number.unit) == (value, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "5x",
        "5xy",
        "1/0",
        "1,23",
        "0,123",
        "1.2.3",
        "2 million",
        "3 halves",
        "1 or 2",
        "5_8",
        "--5",
        "9" * 2000,
    ],
)
def test_other_texts_are_no_plain_numbers(text):
    assert plain_number(text) is None


def test_the_key_ignores_what_carries_no_meaning():
    assert key(r"$\left( 3 ,\dfrac{\pi}{2} \right)$.") == key(r"(3,\frac{\pi}{2})")
    assert key("1 2") != key("12")
