import itertools
import random

import numpy as np
import pytest

from w2sr_jax.core.records import Trace
from w2sr_jax.micro.config import CorpusConfig
from w2sr_jax.micro.corpus import batches, documents
from w2sr_jax.micro.scramble import scramble
from w2sr_jax.micro.task import BOX, WORK, make_splits
from w2sr_jax.micro.tokenizer import END, VOCABULARY, make_tokenizer

ROWS = 8


def read_rows(batch):
    """(prompt, response) of every document in a batch, as text; the response's mask must cover it and its end."""
    tokenizer = make_tokenizer()
    for row in range(len(batch.tokens_BT)):
        for segment in range(1, batch.segment_ids_BT[row].max() + 1):
            places = np.nonzero(batch.segment_ids_BT[row] == segment)[0]
            ids = batch.tokens_BT[row, places]
            mask = batch.loss_mask_BT[row, places]
            first = int(mask.argmax()) + 1
            assert mask.sum() == len(ids) - first
            assert ids[-1] == VOCABULARY[END]
            yield tokenizer.decode(ids[:first]), tokenizer.decode(ids[first:-1])


def test_held_out_problems_never_occur_in_the_pretraining_stream():
    splits = make_splits(0, {"train": 2048, "validation": 250, "test": 500})
    held_out = {problem.problem for problems in splits.values() for problem in problems}
    config = CorpusConfig(direct_lengths=(6.0, 1.0, 1.0, 1.0, 1.0))
    read = [
        prompt
        for batch in itertools.islice(batches(config, ROWS, make_tokenizer(), 0, held_out), 300)
        for prompt, _ in read_rows(batch)
    ]
    assert len(read) > 5000
    assert not held_out & set(read)
    # The filter is what keeps them out: the same stream without it does hold such problems.
    unfiltered = itertools.islice(documents(config, 0, ()), 5000)
    assert held_out & {prompt for prompt, _ in unfiltered}


def test_the_three_ways_of_answering_have_their_shares():
    config = CorpusConfig(direct_share=0.5, careful_share=0.25, worked_lengths=(0.0, 1.0, 1.0, 1.0, 1.0))
    found = list(itertools.islice(documents(config, 0, ()), 4000))
    worked = [(prompt, response) for prompt, response in found if response.startswith(WORK)]
    operations = [sum(prompt.count(op) for op in "+-*") for prompt, _ in worked]
    careful = [response.count("=") == count for (_, response), count in zip(worked, operations)]
    assert len(worked) / len(found) == pytest.approx(0.5, abs=0.03)
    assert sum(careful) / len(careful) == pytest.approx(0.25, abs=0.03)
    assert all(response.startswith((WORK, BOX)) for _, response in found)


def test_batches_are_full_rows_of_whole_documents():
    config = CorpusConfig()
    known = set(itertools.islice(documents(config, 5, ()), 3000))
    for batch in itertools.islice(batches(config, ROWS, make_tokenizer(), 5, ()), 40):
        assert batch.tokens_BT.shape == (ROWS, config.row_length)
        assert (batch.segment_ids_BT > 0).mean() > 0.85
        assert set(read_rows(batch)) <= known


def test_a_seed_names_its_corpus():
    first, same, other = (next(batches(CorpusConfig(), ROWS, make_tokenizer(), seed, ())) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.tokens_BT, same.tokens_BT)
    assert not np.array_equal(first.tokens_BT, other.tokens_BT)


def test_scrambled_traces_keep_the_form_and_lose_the_values():
    response = r"<work>37+5=42*3=26-4=22\boxed{22}"
    trace = Trace(
        problem_id="train-0001", sample=0, response=response, response_tokens=24, finish_reason="stop", teacher="t"
    )
    made = [scramble(trace, random.Random(seed)).response for seed in range(50)]
    for text in made:
        assert text.startswith("<work>37+5=")
        assert [c for c in text if not c.isdigit()] == [c for c in response if not c.isdigit()]
        assert text[-3:-1] == text[text.rindex("=") + 1 :][:2]  # the box repeats the last value
    assert len(set(made)) == 50


def test_a_scrambled_direct_answer_is_a_random_box():
    trace = Trace(
        problem_id="train-0001", sample=0, response=r"\boxed{22}", response_tokens=5, finish_reason="stop", teacher="t"
    )
    made = {scramble(trace, random.Random(seed)).response for seed in range(300)}
    assert len(made) > 80
    assert all(len(text) == len(r"\boxed{22}") and text.startswith(BOX) for text in made)
