"""Safetensors files of a model directory: names, shapes and slices on the way in, sharded files on the way out.

Only safetensors is read: nothing in a model directory is ever unpickled or executed.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (teaches numpy bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from w2sr_jax.core import processes
from w2sr_jax.core.records import RecordError, read_json, write_json
from w2sr_jax.model.config import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}
Index = tuple[slice, ...]


class TensorFiles:
    """The tensors of a model directory, opened but not read.

    Raises:
        CheckpointError: no safetensors, a file that is missing, cut short or malformed, a tensor present twice.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self._files: dict[str, Any] = {}  # of every tensor
        for path in weight_files(directory):
            try:
                file = safe_open(path, framework="numpy")
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    if name in self._files:
                        raise CheckpointError(f"{path}: tensor {name} is also in another file")
                    view = file.get_slice(name)
                    self._files[name] = file
                    self.shapes[name], self.dtypes[name] = tuple(view.get_shape()), view.get_dtype()
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None

    def read(self, name: str, index: Index) -> np.ndarray:
        """A slice of one tensor, in its stored dtype; only these bytes are read."""
        try:
            return self._files[name].get_slice(name)[index]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.directory}: tensor {name} cannot be read: {error}") from None


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, single or listed in an index.

    Raises:
        CheckpointError: there are none, or the index is malformed or names a file that is missing.
    """
    if not (index := directory / INDEX).exists():
        if (directory / SINGLE).exists():
            return [directory / SINGLE]
        pickled = any(directory.glob("*.bin"))
        hint = "; .bin files are pickles and are not read, convert them to safetensors first" if pickled else ""
        raise CheckpointError(f"{directory}: neither {SINGLE} nor {INDEX} is there{hint}")
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except RecordError as error:
        raise CheckpointError(str(error)) from None
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: weight_map: expected an object of tensor name to file name") from None
    for name in names:
        # The index is not trusted to point outside its directory.
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: weight_map: {name!r} is not the name of a safetensors file")
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise CheckpointError(f"{directory}: files named by {INDEX} are missing: {', '.join(missing)}")
    return [directory / name for name in names]


def write_tensors(
    directory: Path, tensors: Iterable[tuple[str, Callable[[], np.ndarray]]], sizes: dict[str, int], limit: int
) -> None:
    """Writes tensors to one file, or to several of at most `limit` bytes (one tensor may exceed it) and an index.

    Of several processes each writes every so-manieth file, and fetches no other tensors.

    Args:
        directory: exists already.
        tensors: (name, its array) in the order of `sizes`; one file's worth is held at a time.
        sizes: bytes of every tensor.
        limit: bytes per file.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    stream = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        mine = number % processes.count() == processes.index()
        held: dict[str, np.ndarray] = {}
        for name in names:
            found, fetch = next(stream)
            assert found == name
            if mine:
                held[name] = fetch()
        if mine:
            _save(held, directory / file)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(directory / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map})


def _save(held: dict[str, np.ndarray], path: Path) -> None:
    """Writes one file, with the permissions that any new file gets: safetensors' own let nobody else read it."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(held, path, metadata={"format": "pt"})
    path.chmod(mode)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model directory.

    Raises:
        CheckpointError: missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; is {path.parent} a Hugging Face model directory?") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value
