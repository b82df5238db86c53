import itertools
import random

import pytest

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.grading.grade import grade
from w2sr_jax.micro.task import MAX_OPERATIONS, OPERANDS, Chain, make_splits, stream

CHAIN = Chain(37, (("+", 5), ("*", 3), ("-", 4)))


def draws(count: int) -> list[Chain]:
    rng = random.Random(0)
    return [Chain.draw(rng, 1 + index % MAX_OPERATIONS) for index in range(count)]


def test_a_problem_and_its_three_answers_read_as_documented():
    assert CHAIN.text == "37+5*3-4=?"
    assert CHAIN.direct() == r"\boxed{22}"
    assert CHAIN.worked() == r"<work>37+5=42*3=26-4=22\boxed{22}"
    assert CHAIN.worked(in_head=2) == r"<work>37+5*3=26-4=22\boxed{22}"


def test_one_operation_is_worked_in_one_way_only():
    chain = Chain(7, (("-", 5),))
    assert chain.worked(in_head=2) == chain.worked() == r"<work>07-5=02\boxed{02}"


def test_answers_agree_with_python_from_left_to_right():
    for chain in draws(200):
        value = str(chain.start)
        for op, operand in chain.operations:
            value = f"({value} {op} {operand})"
        assert int(chain.answer) == eval(value) % 100, chain.text  # text of our own making


def test_every_way_of_answering_is_graded_correct():
    for chain in draws(100):
        for response in (chain.direct(), chain.worked(), chain.worked(in_head=2)):
            assert grade(response, chain.answer).correct, (chain.text, response)


def test_operands_stay_in_their_ranges():
    for chain in draws(500):
        assert all(operand in OPERANDS[op] for op, operand in chain.operations)


def test_the_text_is_the_exact_key_of_a_problem():
    chains = set(draws(3000))
    assert len({chain.text for chain in chains}) == len(chains)


def test_splits_are_pairwise_disjoint_distinct_and_evenly_mixed():
    splits = make_splits(3, {"train": 500, "validation": 100, "test": 200})
    texts = {name: {problem.problem for problem in problems} for name, problems in splits.items()}
    assert {name: len(found) for name, found in texts.items()} == {"train": 500, "validation": 100, "test": 200}
    for one, other in itertools.combinations(texts.values(), 2):
        assert not one & other
    for problems in splits.values():
        levels = [problem.level for problem in problems]
        assert {levels.count(str(length)) for length in range(1, 6)} == {len(problems) // 5}


def test_a_seed_names_its_problems():
    sizes = {"test": 20}
    assert make_splits(1, sizes) == make_splits(1, sizes) != make_splits(2, sizes)


def test_more_problems_than_there_are_is_one_clear_line():
    with pytest.raises(W2SRError, match="lower sizes"):
        make_splits(0, {"train": 10_000_000})


def test_a_stream_never_gives_what_is_held_out():
    rng = random.Random(0)
    seen = [chain.text for chain in itertools.islice(stream(rng, (1.0,), (), Chain), 4000)]
    held_out = set(seen[:100])
    again = stream(random.Random(0), (1.0,), held_out, Chain)
    found = [chain.text for chain in itertools.islice(again, 3000)]
    assert not held_out & set(found)
    assert found == [text for text in seen if text not in held_out][:3000]
