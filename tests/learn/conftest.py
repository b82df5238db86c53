"""A tiny model and random batches for every test of learn/."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.learn.step import RolloutBatch
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

CONFIG = ModelConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    tie_embeddings=True,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """The fields of data.pipeline.Batch."""

    tokens_BT: Any
    targets_BT: Any
    loss_mask_BT: Any
    positions_BT: Any
    segment_ids_BT: Any


@pytest.fixture
def model():
    """make(**ModelConfig fields) -> (graphdef, params), the same at every call."""

    def make(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        return nnx.split(Decoder(config, rngs=nnx.Rngs(0)))

    return make


@pytest.fixture
def packed_batch():
    """make(seed, rows, length) -> Rows of two segments and padding, with a random loss mask."""

    def make(seed=0, rows=8, length=12):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(1, CONFIG.vocab_size, (rows, length)).astype(np.int32)
        targets = rng.integers(1, CONFIG.vocab_size, (rows, length)).astype(np.int32)
        cut, end = length // 3, length - 2
        segments = np.zeros((rows, length), np.int32)
        segments[:, :cut], segments[:, cut:end] = 1, 2
        positions = np.where(segments == 1, np.arange(length), np.arange(length) - cut).astype(np.int32)
        mask = ((rng.random((rows, length)) < rng.random((rows, 1))) & (segments > 0)).astype(np.float32)
        return Rows(tokens, targets, mask, positions, segments)

    return make


@pytest.fixture
def rollout(packed_batch):
    """make(seed, rows, length) -> RolloutBatch of one response a row."""

    def make(seed=0, rows=8, length=12):
        batch, rng = packed_batch(seed, rows, length), np.random.default_rng(seed + 100)
        return RolloutBatch(
            batch.tokens_BT,
            batch.targets_BT,
            batch.loss_mask_BT,
            np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
            (batch.segment_ids_BT > 0).astype(np.int32),
            *(rng.normal(-3.5, 0.2, (3, rows, length)).astype(np.float32)),
            rng.normal(size=rows).astype(np.float32),
        )

    return make


@pytest.fixture
def train():
    """make(**TrainConfig fields) -> float32 TrainConfig whose loss runs in chunks of 5."""
    return lambda **changes: TrainConfig(**({"dtype": "float32", "remat": "none", "loss_chunk": 5} | changes))


@pytest.fixture
def fresh():
    """A copy of a tree, for a step that donates it."""
    return lambda tree: jax.tree.map(jnp.copy, tree)
