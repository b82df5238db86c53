"""The sizes of a batch's arrays."""

from w2sr_jax.model.buckets import ELSEWHERE, ON_CPU, cache_bucket, prompt_bucket


def test_smaller_batches_are_powers_of_two_and_large_ones_half_way_between_too():
    sizes = [100]
    while sizes[-1]:
        sizes.append(ON_CPU.smaller(sizes[-1]))
    assert sizes == [100, 96, 64, 48, 32, 24, 16, 8, 4, 2, 1, 0]
    assert [ELSEWHERE.smaller(rows) for rows in (256, 64, 32, 31, 8)] == [64, 16, 8, 0, 0]


def test_buckets_hold_their_length_with_less_than_half_unused():
    for length in range(1, 5000):
        assert length <= ON_CPU.prompts(length) <= prompt_bucket(length) < max(17, 2 * length)
        assert ON_CPU.prompts(length) <= max(16, 1.5 * length)
        assert length <= cache_bucket(length) <= max(32, 1.5 * length)
    assert len({cache_bucket(length) for length in range(1, 5000)}) <= 16
