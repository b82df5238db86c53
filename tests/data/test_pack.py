import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.data.chat import Example
from w2sr_jax.data.pack import first_fit, pack_rows

CAPACITY = 24
lengths_lists = st.lists(st.integers(1, CAPACITY), max_size=60)


def slow_first_fit(lengths, capacity):
    bins, free = [], []
    for index, length in enumerate(lengths):
        spot = next((b for b, room in enumerate(free) if room >= length), None)
        if spot is None:
            bins.append([])
            free.append(capacity)
            spot = len(bins) - 1
        bins[spot].append(index)
        free[spot] -= length
    return bins


@given(lengths_lists)
def test_first_fit_equals_the_textbook_search(lengths):
    assert first_fit(lengths, CAPACITY) == slow_first_fit(lengths, CAPACITY)


@given(lengths_lists)
def test_every_example_is_in_exactly_one_bin_and_no_bin_overflows(lengths):
    bins = first_fit(lengths, CAPACITY)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in b) <= CAPACITY for b in bins)
    assert len(bins) <= 2 * -(-sum(lengths) // CAPACITY)


def test_a_hundred_thousand_examples_are_packed_in_seconds():
    lengths = np.random.default_rng(0).integers(50, 2000, 100_000).tolist()
    bins = first_fit(lengths, 4096)
    assert sum(lengths) / (4096 * len(bins)) > 0.98


@pytest.mark.parametrize("length", [0, CAPACITY + 1])
def test_a_length_that_fits_no_row_is_an_error(length):
    with pytest.raises(W2SRError, match=f"example 1 has {length} tokens"):
        first_fit([3, length], CAPACITY)


@st.composite
def example_lists(draw):
    """Examples whose tokens are unique over the whole list, so that any mix-up shows; prompts from 0 tokens."""
    shapes = draw(st.lists(st.tuples(st.integers(0, 10), st.integers(1, CAPACITY - 10)), min_size=1, max_size=20))
    examples, token = [], 1
    for prompt_length, response_length in shapes:
        n = prompt_length + response_length
        examples.append(Example(list(range(token, token + n)), prompt_length))
        token += n
    return examples


@settings(max_examples=60)
@given(example_lists(), st.booleans())
def test_packing_invariants(examples, packing):
    lengths = [len(e.tokens) for e in examples]
    rows = first_fit(lengths, CAPACITY) if packing else [[i] for i in range(len(examples))]
    # Padding is a token that also occurs in an example, as pad == eos does.
    batch = pack_rows(examples, rows, CAPACITY, pad_id=1)
    for b, row in enumerate(rows):
        segments = batch.segment_ids_BT[b]
        assert sorted(set(segments[segments > 0])) == list(range(1, len(row) + 1))
        for segment, index in enumerate(row, 1):
            example = examples[index]
            here = np.flatnonzero(segments == segment)
            assert here.tolist() == list(range(here[0], here[0] + len(example.tokens)))
            assert batch.tokens_BT[b, here].tolist() == example.tokens
            assert batch.positions_BT[b, here].tolist() == list(range(len(example.tokens)))
            assert batch.targets_BT[b, here].tolist() == [*example.tokens[1:], 0]
            # What is learnt is the response with its closing token, in full (but for a response's first token
            # that nothing stands before), and nothing else.
            learnt = batch.targets_BT[b, here][batch.loss_mask_BT[b, here] == 1].tolist()
            assert learnt == example.tokens[max(example.prompt_length, 1) :]
        padding = segments == 0
        assert (batch.tokens_BT[b, padding] == 1).all()
        assert not batch.loss_mask_BT[b, padding].any()
        assert not batch.positions_BT[b, padding].any()
    inside = batch.segment_ids_BT[:, :-1] == batch.segment_ids_BT[:, 1:]
    inside &= batch.segment_ids_BT[:, :-1] > 0
    np.testing.assert_array_equal(batch.targets_BT[:, :-1][inside], batch.tokens_BT[:, 1:][inside])
    assert not batch.loss_mask_BT[:, :-1][~inside].any()


def test_the_drawing_in_the_docstring_is_right():
    batch = pack_rows([Example([5, 6, 7], 1), Example([8, 9], 1)], [[0, 1]], 6)
    assert batch.tokens_BT.tolist() == [[5, 6, 7, 8, 9, 0]]
    assert batch.targets_BT.tolist() == [[6, 7, 0, 9, 0, 0]]
    assert batch.loss_mask_BT.tolist() == [[1, 1, 0, 1, 0, 0]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 1, 0]]
    assert batch.segment_ids_BT.tolist() == [[1, 1, 1, 2, 2, 0]]


def test_a_batch_passes_through_jit_as_a_pytree():
    batch = pack_rows([Example([5, 6, 7], 1)], [[0], [0]], 4)
    assert len(jax.tree.leaves(batch)) == 5
    doubled = jax.jit(lambda b: jax.tree.map(lambda x: 2 * x, b))(batch)
    assert doubled.tokens_BT.tolist() == [[10, 12, 14, 0]] * 2
    assert [x.dtype.name for x in jax.tree.leaves(batch)] == ["int32", "int32", "float32", "int32", "int32"]
