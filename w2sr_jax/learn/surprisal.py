"""How surprising a model finds responses: their mean negative log-likelihood, token by token.

Shape letters: B rows, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.mesh import replicated
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.learn.state import shard_batch
from w2sr_jax.learn.step import make_logprob_fn


def surprisals(
    model: Any,
    batches: Iterator[tuple[Sequence[int], Any]],
    train: TrainConfig,
    mesh: Mesh | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict[int, tuple[float, int]]:
    """One number for each row.

    Args:
        batches: (what the rows are called, an SFT batch with one example a row); more rows than names are padding.
        train: loss_chunk.
        tick: called after each batch.

    Returns:
        name -> (mean negative log-likelihood of the targets in nats, how many targets).
    """
    graphdef, params = nnx.split(model)
    logprobs = make_logprob_fn(graphdef, train, mesh)
    # Every process gets every row, whichever of its devices computed it.
    whole = jax.jit(lambda x: x, out_shardings=None if mesh is None else replicated(mesh))
    found = {}
    for names, batch in batches:
        logprobs_BT = np.asarray(whole(logprobs(params, batch if mesh is None else shard_batch(batch, mesh))))
        counts_B = np.asarray(batch.loss_mask_BT).sum(axis=1)
        for row, name in enumerate(names):
            found[name] = (float(-logprobs_BT[row].sum() / counts_B[row]), int(counts_B[row]))
        tick()
    return found
