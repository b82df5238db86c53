"""Arrays on disk that both sides read: a file an array, no pickle, no library of either side needed.

DIR/batches/NUMBER/FIELD.npy     the fields of data.pack.Batch, in the order in which `w2sr sft` would take them
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from w2sr_jax.core.errors import W2SRError


def write_arrays(directory: Path, arrays: dict[str, Any]) -> None:
    """Writes one group of arrays; the directory appears whole or not at all."""
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, value in arrays.items():
        np.save(part / f"{name}.npy", np.asarray(value), allow_pickle=False)
    shutil.rmtree(directory, ignore_errors=True)
    part.rename(directory)


def read_arrays(directory: Path) -> dict[str, np.ndarray]:
    """The arrays of one group.

    Raises:
        W2SRError: there are none.
    """
    found = {path.stem: np.load(path, allow_pickle=False) for path in sorted(directory.glob("*.npy"))}
    if not found:
        raise W2SRError(f"{directory}: holds no arrays")
    return found


def write_batches(directory: Path, batches: Any, count: int) -> None:
    """Takes `count` batches of an iterator and writes those that are not there yet."""
    for number in range(count):
        batch = next(batches)
        if not (directory / str(number)).is_dir():
            write_arrays(
                directory / str(number), {f.name: getattr(batch, f.name) for f in dataclasses.fields(type(batch))}
            )


def groups(directory: Path) -> list[Path]:
    """The directories of a directory of batches, in order."""
    return sorted((path for path in directory.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def without_old_logprobs(directory: Path) -> list[Path]:
    """Those groups, of rollouts, that nobody has given logprobs of the weights at the start yet."""
    return [group for group in groups(directory) if not (group / "old_logprobs_BT.npy").exists()]


def read_batch(directory: Path, number: int) -> dict[str, np.ndarray]:
    """Batch `number`; after the last one comes the first again."""
    return read_arrays(directory / str(number % len(groups(directory))))
