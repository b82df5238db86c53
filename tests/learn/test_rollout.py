"""From sampled responses to arrays, and the order in which problems are asked."""

import numpy as np
import pytest

from w2sr_jax.learn.rollout import Stream, bucket, pad_rollout


def test_every_epoch_of_a_stream_is_another_permutation():
    stream = Stream(7, seed=3)
    epochs = [stream.take(7) for _ in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert Stream(7, seed=4).take(7) != epochs[0]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_stream_does_not_depend_on_how_it_is_taken_nor_on_a_resume(size):
    whole = Stream(size, seed=0).take(20)
    stream = Stream(size, seed=0)
    assert [index for count in (1, 4, 0, 9) for index in stream.take(count)] == whole[:14]
    assert stream.cursor == 14
    assert Stream(size, seed=0, cursor=14).take(6) == whole[14:]


def test_buckets_are_few_and_never_too_small():
    widths = {bucket(length) for length in range(1, 9000)}
    assert all(length <= bucket(length) < 1.2 * length + 16 for length in range(1, 9000))
    assert len(widths) < 70
    assert [bucket(n) for n in (1, 16, 17, 256, 257)] == [16, 16, 32, 256, 288]


def test_on_a_tpu_wide_buckets_are_whole_blocks_of_its_attention_kernel():
    assert [bucket(n, "tpu") for n in (1, 17, 257, 1024)] == [bucket(n, "cpu") for n in (1, 17, 257, 1024)]
    assert [bucket(n, "tpu") for n in (1025, 1536, 1537, 2049, 4097, 8193)] == [1536, 1536, 2048, 2560, 4608, 9216]
    assert {bucket(n, "tpu") % 512 for n in range(1025, 9000)} == {0}
    assert [bucket(n, "cpu") for n in (1025, 1537, 2049, 4097)] == [1152, 1664, 2304, 4608]


def test_a_rollout_is_padded_and_its_loss_is_on_the_response_only():
    batch = pad_rollout(
        prompts=[[5, 6, 7], [8]],
        responses=[[9, 1], [4, 3, 2, 1]],
        sampler_logprobs=[[-0.1, -0.2], [-1.0, -2.0, -3.0, -4.0]],
        advantages=np.array([0.5, -0.5]),
        length=6,
    )
    np.testing.assert_array_equal(batch.tokens_BT, [[5, 6, 7, 9, 0, 0], [8, 4, 3, 2, 0, 0]])
    np.testing.assert_array_equal(batch.targets_BT, [[6, 7, 9, 1, 0, 0], [4, 3, 2, 1, 0, 0]])
    np.testing.assert_array_equal(batch.loss_mask_BT, [[0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(batch.positions_BT, [[0, 1, 2, 3, 0, 0], [0, 1, 2, 3, 0, 0]])
    np.testing.assert_array_equal(batch.segment_ids_BT, [[1, 1, 1, 1, 0, 0]] * 2)
    np.testing.assert_allclose(batch.sampler_logprobs_BT[0], [0, 0, -0.1, -0.2, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(batch.sampler_logprobs_BT[1], [-1, -2, -3, -4, 0, 0])
    assert not batch.old_logprobs_BT.any()
    assert not batch.ref_logprobs_BT.any()
    assert batch.advantages_B.dtype == np.float32


def test_a_rollout_that_fills_its_row_exactly_is_whole():
    batch = pad_rollout([[1, 2]], [[3, 4]], [[-1.0, -2.0]], np.zeros(1), length=3)
    np.testing.assert_array_equal(batch.tokens_BT, [[1, 2, 3]])
    np.testing.assert_array_equal(batch.targets_BT, [[2, 3, 4]])
