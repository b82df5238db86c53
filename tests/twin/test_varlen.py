"""PyTorch's attention over packed rows on a GPU, with its kernel computed plainly, since a CPU has none."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
varlen = pytest.importorskip("torch.nn.attention.varlen")
transformers = pytest.importorskip("transformers")

from w2sr_jax.twin import torch_model as twin  # noqa: E402
from w2sr_jax.twin.torch_train import nll_sum  # noqa: E402

pytestmark = pytest.mark.torch
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}


def plainly(q, k, v, starts, starts_k, longest, longest_k, *, scale, window_size, enable_gqa=False):
    """Causal softmax attention of each sequence [tokens, heads, H]."""
    assert window_size == (-1, 0)
    assert longest == longest_k
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    outs = []
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist()):
        assert end - first <= longest
        scores = torch.einsum("tnh,snh->nts", q[first:end], k[first:end]) * scale
        hidden = torch.ones(end - first, end - first, dtype=torch.bool).triu(1)
        outs.append(torch.einsum("nts,snh->tnh", scores.masked_fill(hidden, -1e30).softmax(-1), v[first:end]))
    return torch.cat(outs)


def loss_and_gradients(form, arrays):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.Qwen2Config(**SIZES, **HEADS), attn_implementation=form, dtype=torch.float32
    )
    device = torch.device("cpu")
    rows = twin.to_device(arrays, device) | {"starts_S": twin.starts(arrays["segment_ids_BT"], device)}
    loss = nll_sum(model, rows, packed=True)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


def test_packed_rows_put_end_to_end_train_like_rows_under_a_mask(monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", plainly)
    segments = np.repeat([[1, 2, 3, 0], [1, 1, 2, 2]], [[5, 1, 6, 4][i] for i in range(4)], axis=1).astype(np.int32)
    positions = np.concatenate([np.arange(n) for n in (5, 1, 6, 4, 6, 10)]).reshape(2, 16).astype(np.int32)
    tokens = np.random.default_rng(0).integers(0, 64, (3, 2, 16))
    arrays = {
        "tokens_BT": tokens[0].astype(np.int32),
        "targets_BT": tokens[1].astype(np.int32),
        "loss_mask_BT": (segments > 0).astype(np.float32),
        "positions_BT": positions,
        "segment_ids_BT": segments,
    }
    for got, want in zip(loss_and_gradients(twin.VARLEN, arrays), loss_and_gradients("sdpa", arrays), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_sequences_are_the_examples_of_all_rows_and_their_padding():
    found = twin.starts(np.array([[1, 1, 2, 0], [1, 2, 2, 3]]), torch.device("cpu")).tolist()
    assert found[:7] == [0, 2, 3, 4, 5, 7, 8]
    assert set(found[6:]) == {8}
    assert len(found) == 33
    assert len(twin.starts(np.arange(1, 129)[None], torch.device("cpu"))) == 145
