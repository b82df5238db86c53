"""N-gram overlap of traces with benchmark problems."""

import pytest

from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.data.contamination import Index, words_of

WALK = "Every morning Aya goes for a $9$-kilometer walk and stops at a coffee shop afterwards, for t minutes."


def problem(text, identifier="b/0"):
    return Problem(id=identifier, problem=text, answer="1")


def trace(response):
    return Trace(problem_id="p", sample=2, response=response, response_tokens=1, finish_reason="stop", teacher="t")


@pytest.fixture
def index():
    return Index([("aime", [problem(WALK, "aime/7"), problem("Compute 1+2.", "aime/8")])], size=5)


def test_words_ignore_case_spacing_and_latex():
    assert words_of(r"$\frac{1}{2}$ of_It, ÉTÉ") == ["frac", "1", "2", "of", "it", "été"]


def test_a_copied_problem_is_found_with_its_words(index):
    found = index.overlap(problem("Solve: EVERY morning aya goes, for a walk"), trace("no"))
    assert (found.benchmark, found.benchmark_problem, found.part) == ("aime", "aime/7", "problem")
    assert (found.words, found.sample) == ("every morning aya goes for", 2)


def test_a_copy_inside_the_response_is_found_too(index):
    found = index.overlap(problem("Another one"), trace("Recall: it stops at a coffee shop, so"))
    assert (found.part, found.words) == ("response", "stops at a coffee shop")


def test_one_word_less_than_the_n_gram_is_no_overlap(index):
    assert index.overlap(problem("x"), trace("Every morning Aya goes")) is None
    assert index.overlap(problem("x"), trace("Every morning Aya went for a 9")) is None


def test_a_short_benchmark_problem_counts_only_as_a_whole(index):
    assert index.short == 1
    assert index.overlap(problem("compute $1+2$"), trace("no")).benchmark_problem == "aime/8"
    assert index.overlap(problem("Please compute $1+2$ and add 3 to it"), trace("no")) is None


def test_a_benchmark_problem_without_words_overlaps_with_nothing():
    wordless = Index([("b", [problem("$$ ? $$")])])
    assert wordless.short == 1
    assert wordless.find("") is None
    assert wordless.find("\\[") is None


def test_the_default_is_13_words():
    whole = Index([("b", [problem(WALK)])])
    words = words_of(WALK)
    assert whole.find(" ".join(words[:12])) is None
    assert whole.find(" ".join(words[:13])) is not None
