"""Reads a Hugging Face model, checks every tensor, and writes it again to WORKDIR/export: dtype, shards, tokenizer.

The export is then compared with its source tensor by tensor, so that what this stage leaves is known to be the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.stage_config import ConvertConfig
from w2sr_jax.model import hf
from w2sr_jax.model.hf_keys import open_checked, tensor_table

CONFIG = ConvertConfig


def main(config: ConvertConfig, workdir: str) -> dict[str, Any]:
    """Writes export/.

    Returns:
        {"export": its path, "tensors": how many were compared}.

    Raises:
        CheckpointError: the source does not hold what its config.json says.
        W2SRError: the export differs from the source.
    """
    validate(config)
    export = Path(workdir) / "export"
    source = hf.resolve(config.model)
    if source.resolve() == export.resolve():
        raise W2SRError(f"config.model: {config.model} is the export of this workdir; choose another workdir")
    with cost.StageClock(workdir, "convert") as clock:
        model = hf.load(source, dtype=jnp.dtype(config.dtype))
        hf.save(model, export, jnp.dtype(config.dtype), config.max_shard_gb, tokenizer_from=source)
        tensors = verify(source, export, config.dtype)
        cost.append_ledger(workdir, clock.line())
    logging.info("wrote %s: %d tensors, each equal to its source in %s", export, tensors, config.dtype)
    return {"export": str(export), "tensors": tensors}


def verify(source: Path, export: Path, dtype: str) -> int:
    """Compares two model directories tensor by tensor, the source rounded to `dtype`, and returns their number.

    Raises:
        W2SRError: names every tensor that differs.
    """
    model_config = hf.load_config(export)
    if model_config != hf.load_config(source):
        raise W2SRError(f"{export}/config.json: does not describe the model of {source}")
    old, new = open_checked(source, model_config), open_checked(export, model_config)
    table = tensor_table(model_config)
    different = []
    for tensor in table:
        index = (slice(None),) * len(tensor.shape)
        before, after = old.read(tensor.name, index).astype(jnp.dtype(dtype)), new.read(tensor.name, index)
        # Bytes, not values: a NaN must stay the NaN that it was.
        if before.dtype != after.dtype or before.tobytes() != np.ascontiguousarray(after).tobytes():
            different.append(tensor.name)
    if different:
        raise W2SRError(f"{export}: {len(different)} tensors differ from {source}: {', '.join(different)}")
    return len(table)


if __name__ == "__main__":
    runtime.main_exit("convert", main, CONFIG)
