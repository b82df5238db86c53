"""Scores by every rule: main and second grader, first box, last box, stop at the first box."""

import pytest

from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.grading.scoring import score_many


@pytest.fixture
def score(children):
    """(main, second, first box, last box, stop at box) of a response; no process may be needed."""

    def one(response, answer="5", verifier="math"):
        with GraderPool() as pool:
            (found,) = score_many(pool, [(response, answer)], [verifier])
        assert children() == set()
        return found.main.correct, found.second, found.first_box, found.last_box, found.stop_at_box

    return one


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"so \boxed{5}", (True, True, True, True, True)),
        (r"so \boxed{5}. That is it.", (True, True, True, True, True)),
        (r"so \boxed{4}", (False, False, False, False, False)),
        (r"\boxed{4} no, \boxed{5}", (True, True, False, True, False)),
        (r"\boxed{5} no, \boxed{4}", (False, False, True, False, True)),
        (r"\boxed{5} and \boxed{4", (False, False, True, False, True)),
        (r"\boxed{5 and \boxed{5}", (True, True, False, True, True)),
        (r"\boxed{5}, again \boxed{5}", (True, True, True, True, True)),
        (r"\boxed{5}, user: \boxed{7} \boxed{5}", (True, True, True, True, True)),
        ("The answer is 5", (True, True, False, False, True)),
        ("no answer", (False, False, False, False, False)),
        (r"\boxed 5 more", (True, True, True, True, True)),
        (r"\boxed{500}", (False, True, False, False, False)),
    ],
)
def test_a_response_by_every_rule(response, expected, score):
    assert score(response) == expected


def test_other_verifiers_have_one_opinion(score):
    assert score(r"\boxed{500}", "5", "exact") == (False, False, False, False, False)
    assert score(r"\boxed{A} \boxed{(B)}", "B", "choice") == (True, True, False, True, False)


def test_scores_stand_in_the_order_of_the_pairs():
    pairs = [(r"\boxed{1} \boxed{2}", "2"), (r"\boxed{3}", "3"), (r"\boxed{4} \boxed{5}", "4")]
    with GraderPool() as pool:
        found = score_many(pool, pairs)
    assert [s.main.extracted for s in found] == ["2", "3", "5"]
    assert [s.first_box for s in found] == [False, True, True]
