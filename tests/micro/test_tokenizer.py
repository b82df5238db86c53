import itertools

import pytest

from w2sr_jax.data.chat import closing_token_id, load_tokenizer, stop_token_ids
from w2sr_jax.micro.config import CorpusConfig
from w2sr_jax.micro.corpus import documents
from w2sr_jax.micro.tokenizer import END, PAD, VOCABULARY, make_tokenizer, save_tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path, 64)
    return path


def test_every_document_survives_encoding_and_decoding(directory):
    tokenizer = load_tokenizer(directory)
    for prompt, response in itertools.islice(documents(CorpusConfig(), 0, ()), 200):
        for text in (prompt, response, prompt + response):
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.decode(ids) == text
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
            assert tokenizer.unk_token_id not in ids


def test_prompt_and_response_encode_apart_as_they_do_together():
    tokenizer = make_tokenizer()
    for prompt, response in itertools.islice(documents(CorpusConfig(), 1, ()), 200):
        together = tokenizer.encode(prompt + response).ids
        assert tokenizer.encode(prompt).ids + tokenizer.encode(response).ids == together


def test_the_parts_of_an_answer_are_single_tokens():
    tokens = make_tokenizer().encode(r"37+5=?<work>37+5=42\boxed{42}").tokens
    assert tokens == ["3", "7", "+", "5", "=?", "<work>", "3", "7", "+", "5", "=", "4", "2", r"\boxed{", "4", "2", "}"]


def test_an_unknown_character_is_the_unknown_token_and_not_lost():
    assert make_tokenizer().encode("3 7").tokens == ["3", "<|unk|>", "7"]


def test_the_end_of_text_stops_and_closes_a_response(directory):
    tokenizer = load_tokenizer(directory)
    assert len(tokenizer) == len(VOCABULARY)
    assert stop_token_ids(directory, tokenizer)[0] == (VOCABULARY[END],)
    assert closing_token_id(directory, tokenizer, "plain") == VOCABULARY[END]
    assert tokenizer.pad_token_id == VOCABULARY[PAD] != VOCABULARY[END]
