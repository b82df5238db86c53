"""The letters task: its moves, its written forms, and base models of either family on it."""

import random

import pytest

from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_jsonl
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.grading.grade import grade
from w2sr_jax.micro.config import MicroConfig, PretrainConfig, SizeConfig, SplitsConfig
from w2sr_jax.micro.letters import Letters
from w2sr_jax.micro.pretrain import CONTEXT, MAX_TOKENS
from w2sr_jax.micro.task import make_splits
from w2sr_jax.micro.tokenizer import SPECIAL, make_tokenizer, vocabulary
from w2sr_jax.model import hf
from w2sr_jax.stages import micro

ONE = Letters("dbca", "14")


def test_moves_swap_neighbours_or_put_the_first_letter_last():
    assert Letters("abcd", "1").values == ["bacd"]
    assert Letters("abcd", "2").values == ["acbd"]
    assert Letters("abcd", "3").values == ["abdc"]
    assert Letters("abcd", "4").values == ["bcda"]
    assert ONE.values == ["bdca", "dcab"]


def test_answers_are_written_directly_with_care_or_sloppily():
    assert ONE.text == "dbca14=?"
    assert ONE.direct() == r"\boxed{dcab}"
    assert ONE.worked() == r"<work>dbca1=bdca4=dcab\boxed{dcab}"
    assert ONE.worked(in_head=2) == r"<work>dbca14=dcab\boxed{dcab}"
    assert ONE.worked().startswith(Letters.careful_start(ONE.text))
    assert grade(ONE.worked(), ONE.answer, ONE.problem("p").verifier).correct


def test_a_problem_is_read_back_from_its_text():
    rng = random.Random(0)
    for operations in range(1, Letters.max_operations + 1):
        drawn = Letters.draw(rng, operations)
        assert Letters.parse(drawn.text) == drawn
    with pytest.raises(W2SRError, match="no problem of the letters task"):
        Letters.parse("aabb1=?")


def test_everything_fits_into_the_context_and_is_known_to_the_tokenizer():
    drawn = Letters.draw(random.Random(0), Letters.max_operations)
    encoded = make_tokenizer("letters").encode(drawn.text + drawn.worked())
    assert len(encoded.ids) < min(CONTEXT, 48)
    assert len(make_tokenizer("letters").encode(drawn.worked()).ids) < MAX_TOKENS
    assert SPECIAL[2] not in encoded.tokens


def test_splits_share_no_problem():
    splits = make_splits(0, {"train": 100, "test": 50}, Letters)
    assert len({p.problem for part in splits.values() for p in part}) == 150
    assert {p.verifier for p in splits["train"]} == {"exact"}


def test_families_share_special_tokens_only():
    one, other = vocabulary(), vocabulary(family="llama")
    assert one.keys() == other.keys()
    assert {token for token in one if one[token] == other[token]} == set(SPECIAL)


def test_a_base_model_of_either_family_and_domain_is_an_ordinary_model(tmp_path):
    size = SizeConfig(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=1, family="llama")
    splits = SplitsConfig(train=40, validation=8, test=8)
    micro.main(MicroConfig(what="problems", domain="letters", splits=splits), str(tmp_path / "p"))
    pretrain = PretrainConfig(max_steps=2, validate_every=1, rows=2, optimizer=OptimizerConfig(learning_rate=1e-3))
    config = MicroConfig(what="base", domain="letters", problems=str(tmp_path / "p"), size=size, pretrain=pretrain)
    micro.main(config, str(tmp_path / "base"))
    made = hf.load_config(tmp_path / "base" / "export")
    assert (made.family, made.attention_bias) == ("llama", False)
    assert made.vocab_size == len(vocabulary("letters", "llama")) == len(load_tokenizer(tmp_path / "base" / "export"))
    solved = MicroConfig(what="solutions", domain="letters", problems=str(tmp_path / "p" / "train.jsonl"))
    micro.main(solved, str(tmp_path / "s"))
    answers = {p.id: p.answer for p in read_jsonl(tmp_path / "p" / "train.jsonl", Problem)}
    for trace in read_jsonl(tmp_path / "s" / "traces.jsonl", Trace):
        assert grade(trace.response, answers[trace.problem_id], "exact").correct
