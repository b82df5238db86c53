"""From logits to tokens: frequencies against the probabilities, and what is never chosen."""

import jax
import numpy as np
import pytest

from w2sr_jax.model.token_choice import choose_tokens, invert, row_keys, truncate


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(0.5, 1.0, 0), (1.0, 1.0, 0), (1.7, 1.0, 0), (1.0, 0.8, 0), (1.3, 1.0, 5), (1.0, 0.7, 6)],
)
def test_sampling_frequencies_match_the_probabilities(temperature, top_p, top_k):
    draws, logits = 20_000, np.array([2.0, 1.5, 1.0, 0.5, 0.0, -0.3, -0.7, -1.0, 0.9, -2.0], np.float32)
    keys = row_keys(np.zeros((draws, 2), np.uint32), np.arange(draws, dtype=np.uint32))
    tokens = choose_tokens(np.tile(logits, (draws, 1)), keys, np.zeros(draws, np.int32), temperature, top_p, top_k)
    probs = expected_probs(logits, temperature, top_p, top_k)
    counts = np.bincount(np.asarray(tokens), minlength=logits.size)
    assert counts[probs == 0].sum() == 0
    expected = probs[probs > 0] * draws
    chi_square = ((counts[probs > 0] - expected) ** 2 / expected).sum()
    freedom = expected.size - 1
    # The 99.9 % point of chi-square by Wilson and Hilferty's approximation (PNAS 17, 1931).
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.09 * np.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("size", [1, 2, 61, 1000, 151_936])
def test_a_uniform_number_picks_the_token_whose_share_it_lies_in(size):
    rng = np.random.default_rng(size)
    numbers = np.concatenate([rng.random(60, np.float32), np.float32([0.0, 0.5, 1 - 2**-24, 2**-24])])
    logits = rng.normal(size=(len(numbers), size)).astype(np.float32) * 3
    logits[:, rng.random(size) < 0.5] = -np.inf
    logits[:, rng.integers(size)] = 0.0
    tokens = np.asarray(jax.jit(invert)(logits, numbers))
    probs = np.exp(logits.astype(np.float64))
    probs /= probs.sum(axis=1, keepdims=True)
    rows = np.arange(len(numbers))
    assert (probs[rows, tokens] > 0).all(), "what has no mass is never chosen"
    end = np.cumsum(probs, axis=1)[rows, tokens]
    assert (numbers < end + 1e-6).all()
    assert (numbers >= end - probs[rows, tokens] - 1e-6).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_still_give_a_token_of_the_vocabulary(temperature):
    logits = np.zeros((3, 61), np.float32)
    logits[1, 7], logits[2] = np.nan, np.nan
    keys = row_keys(np.zeros((3, 2), np.uint32), np.arange(3, dtype=np.uint32))
    tokens = np.asarray(choose_tokens(logits, keys, np.zeros(3, np.int32), temperature, 1.0, 0))
    assert ((tokens >= 0) & (tokens < 61)).all()


def expected_probs(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> np.ndarray:
    """Softmax, then the k most probable, then the fewest of these with mass top_p, by a plain loop."""
    probs = np.exp(logits.astype(np.float64) / temperature)
    order = np.argsort(-probs)[: top_k or None]
    mass, total, kept = 0.0, probs[order].sum(), []
    for token in order:
        if mass >= top_p * total:
            break
        kept.append(token)
        mass += probs[token]
    result = np.zeros_like(probs)
    result[kept] = probs[kept] / probs[kept].sum()
    return result


def test_top_p_of_one_and_top_k_of_the_vocabulary_keep_every_token():
    logits = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32) * 10
    assert np.isfinite(truncate(logits, 1.0, 0)).all()
    assert np.isfinite(truncate(logits, 1.0, 1000)).all()
    np.testing.assert_array_equal(np.isfinite(truncate(logits, 1e-6, 0)).sum(-1), 1)
