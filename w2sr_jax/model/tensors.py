"""Safetensors files of a model directory: names, shapes and slices on the way in, sharded files on the way out.

Only safetensors is read: nothing in a model directory is ever unpickled or executed.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (teaches numpy bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from w2sr_jax.core import processes
from w2sr_jax.core.files import read_json, write_json
from w2sr_jax.core.records import RecordError
from w2sr_jax.model.config import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
FLOATS = set(DTYPES.values())
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
        self._files: dict[str, Path] = {}  # of every tensor
        for path in weight_files(directory):
            try:
                with safe_open(path, framework="numpy") as file:
                    for name in file.keys():  # noqa: SIM118 (not a dict)
                        if name in self._files:
                            raise CheckpointError(f"{path}: tensor {name} is also in another file")
                        view = file.get_slice(name)
                        self._files[name] = path
                        self.shapes[name], self.dtypes[name] = tuple(view.get_shape()), view.get_dtype()
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None

    def read(self, name: str, index: Index) -> np.ndarray:
        """A slice of one tensor, in its stored dtype; only these bytes are read.

        The file is opened for each: what stays mapped counts as this process's memory, in the end the whole model.
        """
        try:
            with safe_open(self._files[name], framework="numpy") as file:
                return file.get_slice(name)[index]
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
    directory: Path,
    tensors: Iterable[tuple[str, Callable[[], np.ndarray]]],
    shapes: dict[str, tuple[int, ...]],
    dtype: np.dtype[Any],
    limit: int,
) -> None:
    """Writes tensors to one file, or to several of at most `limit` bytes (one tensor may exceed it) and an index.

    Of several processes each writes every so-manieth file, and fetches no other tensors.

    Args:
        directory: exists already.
        tensors: (name, its array) in the order of `shapes`; one is held at a time.
        shapes: of every tensor.
        dtype: of every tensor.
        limit: bytes per file.
    """
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
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
        with open(directory / file, "wb") if mine else contextlib.nullcontext() as output:
            if output:
                output.write(_header({name: shapes[name] for name in names}, sizes, dtype))
            for name in names:
                found, fetch = next(stream)
                assert found == name
                if output:
                    array = fetch()
                    assert (array.shape, array.dtype) == (shapes[name], dtype)
                    output.write(array.reshape(-1).view(np.uint8))
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(directory / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map})


def _header(shapes: dict[str, tuple[int, ...]], sizes: dict[str, int], dtype: np.dtype[Any]) -> bytes:
    """The start of a safetensors file: length of a JSON object, and that object, filled up with blanks to 8 bytes.

    Written here since the library's writer wants all tensors of a file in memory, twice.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + sizes[name]
        entries[name] = {"dtype": DTYPES[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


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
