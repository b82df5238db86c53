"""Each flag on what should raise it and on what should not."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2sr_jax.core.trace_config import HYGIENE_FLAGS
from w2sr_jax.grading.hygiene import boxes_disagree, flags

GOOD = r"""Let $x<3$ and $y>2$, so that $\alpha x + \beta y = 7$ by Poincaré's lemma.
Then a<b>c fails, since $\vec v = <a, b>$ and $\mathbb{R} \ni \varepsilon$.

\[
\boxed{\frac{7}{2}}
\]
"""
BOX = r" so \boxed{5}"

CASES = {
    "length_stop": ([], []),  # it depends on the finish reason alone, see below
    "loop": (
        [
            "so x = 1. " * 7,
            "I will try again.\n" * 5 + "Done" + BOX,
            "wait, " * 40,
            "=2" * 30,
            "x = 1 and then y = 2 and therefore z = 3 so we conclude, " * 5,
            "".join(f"step {i}: one two three four five six seven eight nine ten eleven twelve. " for i in range(9))
            + BOX,
        ],
        ["1/3 = 0.33333333333" + BOX, "a\n\n\n\n\n\n\nb" + BOX, "2+2+2+2+2=10" + BOX, "| - | - |\n| 1 | 2 |" + BOX],
    ),
    "missing_box": (["The answer is 5.", "", r"\boxed{5} or \boxed{6", r"\boxed{"], [BOX, r"\fbox{5}", r"\boxed 5"]),
    "text_after_answer": (
        [
            BOX + "\nNow the next problem: add 2 and 3.",
            BOX + ". " + "And more words follow here, quite a number. " * 2,
            BOX + "$.\n\nHuman: another question",
        ],
        [
            BOX,
            BOX + ".",
            BOX + r"$ meters per second.",
            BOX + "\n\\]\n\\end{align*}\n$$\n",
            BOX + " \\text{ cm}.\n",
            "no box at all\nand more text after it",
        ],
    ),
    "script_mixing": (
        ["We compute 因此 the sum" + BOX, "Ответ is five" + BOX, "the اجابة" + BOX, "답은 five is it" + BOX],
        [r"Δ = α + β, ∑, ℝ, ≤, 𝑥, é, ñ, ° and —" + BOX, "因此本题的最终答案应该是五" + BOX, "½ × 4 → 2 ✓" + BOX],
    ),
    "url_or_html": (
        [
            "see https://example.org" + BOX,
            "www.example.org" + BOX,
            "<br/> x" + BOX,
            '<a href="x">' + BOX,
            "x&nbsp;y" + BOX,
            "<div class='y'>" + BOX,
            "H<sub>2</sub>O" + BOX,
            "</p>" + BOX,
            "<!-- c -->" + BOX,
        ],
        [
            "a<b and b>c" + BOX,
            "x<p>y" + BOX,
            "<a, b>" + BOX,
            "<think> yes </think>" + BOX,
            "i<n && j>m" + BOX,
            "1<i>0" + BOX,
        ],
    ),
}


@pytest.mark.parametrize("flag", CASES)
def test_a_flag_is_raised_by_its_fault_and_by_nothing_else(flag):
    raised, silent = CASES[flag]
    for response in raised:
        assert flag in flags(response, "stop"), response
    for response in [*silent, GOOD]:
        assert flag not in flags(response, "stop"), response


def test_a_healthy_response_has_no_flags():
    assert flags(GOOD, "stop") == []


def test_the_finish_reason_decides_length_stops():
    assert flags(GOOD, "length") == ["length_stop"]


def test_every_flag_of_the_config_is_tested():
    assert tuple(CASES) == HYGIENE_FLAGS


def test_disagreeing_boxes_are_noticed():
    assert boxes_disagree(r"\boxed{4} no \boxed{5}")
    assert not boxes_disagree(r"\boxed{5} yes \boxed{5}")
    assert not boxes_disagree("none")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="\\boxed{}<>/ab \n&;.=", max_size=200))
def test_nothing_raises(text):
    assert set(flags(text, "stop")) <= set(HYGIENE_FLAGS)


@pytest.mark.parametrize(
    "unit", ["<", "<div ", "\\boxed{", "a", "ab ", "\n", "$ ", "\\text{", "字", "&", " ", "<a href", "}"]
)
def test_long_responses_take_linear_time(unit):
    text = BOX + unit * (400_000 // len(unit))
    begun = time.monotonic()
    flags(text, "stop")
    assert time.monotonic() - begun < 10
