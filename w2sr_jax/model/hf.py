"""Hugging Face model directories to decoders and back, through one key table read in both directions.

Loading streams: a stacked parameter is filled layer by layer on the devices, and with a mesh every process reads only
the slices that its devices hold. Saving goes tensor by tensor, and each process writes some of the files. So a host
holds its share of the parameters and one tensor, both ways.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from w2sr_jax.core import processes
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import sha256_file, write_json
from w2sr_jax.core.mesh import replicated, sharding, warn_of_replicas
from w2sr_jax.model.config import CheckpointError, ModelConfig
from w2sr_jax.model.decoder import Decoder, Remat
from w2sr_jax.model.hf_keys import KEYS, Tensor, open_checked, tensor_table
from w2sr_jax.model.params import ParamSpec, param_specs
from w2sr_jax.model.tensors import Index, TensorFiles, read_object, weight_files, write_tensors

__all__ = ["CheckpointError", "load", "load_config", "resolve", "save", "weight_stamps", "weights_hash"]

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
HASHED_TOGETHER = 8  # files of 5 GB each: one after another, those of a 32B model take minutes
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "tokenizer.model"]


def resolve(source: str | Path) -> Path:
    """The model directory behind a directory, a training workdir (its `export/`) or a hub id (downloaded).

    Raises:
        CheckpointError: there is none.
    """
    path = Path(source)
    if (path / "export" / "config.json").exists():
        return path / "export"
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{source}: a file; expected a Hugging Face model directory")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(source)):
        raise CheckpointError(f"{source}: no such directory")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(str(source), allow_patterns=HUB_FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = type(error).__name__
        raise CheckpointError(f"{source}: no such directory, and the hub does not give it either ({reason})") from None


def load_config(directory: str | Path) -> ModelConfig:
    """The decoder config of a model directory (anything that `resolve` takes).

    Raises:
        CheckpointError: config.json is missing, malformed, or asks for what is not implemented.
    """
    path = resolve(directory) / "config.json"
    return ModelConfig.from_hf(read_object(path), str(path))


def load(
    directory: str | Path,
    mesh: jax.sharding.Mesh | None = None,
    dtype: Any = jnp.float32,
    *,
    compute_dtype: Any = None,
    scan_layers: bool = True,
    remat: Remat = "none",
    attention: str = "auto",
) -> Decoder:
    """A decoder with the weights of a model directory.

    Args:
        directory: anything that `resolve` takes.
        mesh: parameters are placed by the rules of core/mesh.py; None puts them on the default device.
        dtype: of the parameters, whatever the files hold.
        compute_dtype: of activations; default: `dtype`.
        scan_layers, remat, attention: as Decoder.

    Raises:
        CheckpointError: one line that names every missing, extra and misshaped tensor.
        W2SRError: a dimension that the mesh does not divide, by the parameter's name.
    """
    path = resolve(directory)
    config = load_config(path)
    files = open_checked(path, config)
    compute = dtype if compute_dtype is None else compute_dtype
    model = nnx.eval_shape(
        lambda: Decoder(
            config,
            rngs=nnx.Rngs(0),
            dtype=compute,
            param_dtype=dtype,
            scan_layers=scan_layers,
            remat=remat,
            attention=attention,
        )
    )
    outer, layers = param_specs(config)
    specs = outer | layers
    if mesh is not None:
        for name, spec in specs.items():
            sharding(spec.axes, spec.shape, mesh, name)  # whatever does not divide is said before anything is read
    placed = {name: _fill(files, name, spec, name in layers, jnp.dtype(dtype), mesh) for name, spec in specs.items()}
    for name, value in placed.items():
        model.param(name).set_value(value)
    if mesh is not None:
        warn_of_replicas(placed, mesh)
    return model


def _fill(
    files: TensorFiles, param: str, spec: ParamSpec, stacked: bool, dtype: Any, mesh: jax.sharding.Mesh | None
) -> jax.Array:
    """One parameter; a stacked one layer by layer, so that the host holds a layer and not the stack."""
    pattern, transposed = KEYS[param]
    if not stacked:
        return _read(files, pattern, spec.shape, transposed, dtype, _where(spec, mesh, param))
    shape = spec.shape[1:]
    one = dataclasses.replace(spec, shape=shape, axes=spec.axes[1:])
    where, value = _where(one, mesh, param), _zeros(spec.shape, dtype, _where(spec, mesh, param))
    for layer in range(spec.shape[0]):
        value = _put(value, _read(files, pattern.format(layer), shape, transposed, dtype, where), layer)
        value.block_until_ready()  # the next layer's memory is this one's
    return value


def _where(spec: ParamSpec, mesh: jax.sharding.Mesh | None, name: str) -> jax.sharding.Sharding | None:
    """None is the default device, without committing to it: a step that met committed arrays would compile twice."""
    return None if mesh is None else sharding(spec.axes, spec.shape, mesh, name)


def _read(
    files: TensorFiles,
    name: str,
    shape: tuple[int, ...],
    transposed: bool,
    dtype: Any,
    where: jax.sharding.Sharding | None,
) -> jax.Array:
    """One tensor of the files; every device gets its slice, and only that is read."""
    done: dict[tuple[tuple[int, int, int], ...], np.ndarray] = {}  # replicas share one read

    def part(index: Index | None) -> np.ndarray:
        bounds = tuple(s.indices(size) for s, size in zip(index or (), shape))
        if bounds not in done:
            inner = tuple(slice(*b) for b in bounds)
            value = files.read(name, inner[::-1] if transposed else inner)
            done[bounds] = np.asarray(value.T if transposed else value, dtype=dtype, order="C")
        return done[bounds]

    if where is None:
        return jnp.asarray(part((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, where, part)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "where"))
def _zeros(shape: tuple[int, ...], dtype: Any, where: jax.sharding.Sharding | None) -> jax.Array:
    zeros = jnp.zeros(shape, dtype)
    return zeros if where is None else jax.lax.with_sharding_constraint(zeros, where)


@functools.partial(jax.jit, donate_argnums=0)
def _put(stacked: jax.Array, value: jax.Array, layer: int) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stacked, value, layer, 0)


@jax.jit
def _layer(stacked: jax.Array, layer: int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(stacked, layer, keepdims=False)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _whole(value: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
    """The same array, all of it on every device."""
    return jax.lax.with_sharding_constraint(value, replicated(mesh))


def _exported(model: Decoder, table: list[Tensor], dtype: Any) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Every tensor of the table, to be fetched by whoever wants it; all processes must walk through it together."""
    for tensor in table:
        stored: Any = model.param(tensor.param)[...]
        value = (stored if tensor.layer is None else _layer(stored, tensor.layer)).astype(dtype)
        if not value.is_fully_addressable:
            value = _whole(value, stored.sharding.mesh).addressable_data(0)  # one tensor at a time

        def fetch(value: jax.Array = value, transposed: bool = tensor.transposed) -> np.ndarray:
            host = np.asarray(value)
            return np.ascontiguousarray(host.T if transposed else host)

        yield tensor.name, fetch


def save(
    model: Decoder,
    directory: str | Path,
    dtype: Any = jnp.bfloat16,
    max_shard_gb: float = 5.0,
    tokenizer_from: str | Path | None = None,
) -> None:
    """Writes a model directory that transformers and vLLM load: config, generation config, weights, tokenizer.

    The directory appears whole or not at all; one of that name is replaced. Of several processes each calls this and
    writes its share of the files, of at most max_shard_gb each.

    Args:
        tokenizer_from: a model directory whose tokenizer files (and generation config) are copied.
    """
    directory, config, dtype = Path(directory), model.config, jnp.dtype(dtype)
    table = tensor_table(config)
    part = directory.with_name(f".{directory.name}.part")
    try:
        with processes.writer_first(f"the export of {directory.name}"):
            if processes.is_writer():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
        shapes = {tensor.name: tensor.shape for tensor in table}
        write_tensors(part, _exported(model, table, dtype), shapes, dtype, int(max_shard_gb * 1e9))
        processes.barrier(f"the files of {directory.name}")
        if processes.is_writer():
            _write_configs(config, part, dtype.name)
            _copy_tokenizer(tokenizer_from, part)
            _replace(part, directory)
        processes.barrier(f"the end of {directory.name}")
    except OSError as error:
        raise W2SRError(f"{directory}: cannot be written: {error.strerror or error}") from error


def _write_configs(config: ModelConfig, directory: Path, dtype: str) -> None:
    raw = config.to_hf(dtype)
    write_json(directory / "config.json", raw)
    ids = {key: raw[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(directory / "generation_config.json", {"_from_model_config": True} | ids)


def _copy_tokenizer(source: str | Path | None, directory: Path) -> None:
    if source is None:
        return
    source = resolve(source)
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


def _replace(part: Path, directory: Path) -> None:
    """Moves a finished directory to its place; the old one goes first, since a rename cannot overwrite a directory."""
    for path in part.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    part.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def weights_hash(directory: str | Path) -> str:
    """Hex sha256 over the contents of all weight files, read side by side: the identity of a model in manifests."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(HASHED_TOGETHER) as pool:
        for found in pool.map(sha256_file, weight_files(resolve(directory))):
            digest.update(found.encode())
    return digest.hexdigest()


def weight_stamps(directory: str | Path) -> dict[str, list[int]]:
    """{name of a weight file: [bytes, time of change in ns]}: as long as they stay, so does the hash, within reason."""
    stats = {path.name: path.stat() for path in weight_files(resolve(directory))}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
