"""How a vLLM is started or found, what its servers may call the model, and the seeds that it gets."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from absl import logging

from w2sr_jax.core.config import VllmConfig
from w2sr_jax.engine.vllm_backend import Backend
from w2sr_jax.engine.vllm_offline import Offline, engine_arguments
from w2sr_jax.engine.vllm_server import Servers, start_server


def is_installed() -> bool:
    """Whether there is a vLLM to start; it is not imported."""
    return importlib.util.find_spec("vllm") is not None


def stream(seed: int, sample: int) -> int:
    """A sample's own 63-bit seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{sample}".encode(), digest_size=8).digest()) >> 1


def starter(
    directory: str | Path,
    path: Path,
    dtype: str,
    batch_size: int,
    tensor_parallel: int,
    options: VllmConfig,
    seeded: bool,
) -> Callable[[], Backend]:
    """What starts vLLM, or finds its servers, the first time and after each death."""
    names = [options.served_model] if options.served_model else model_names(directory, path)
    if options.urls:
        return lambda: Servers(options.urls, names, batch_size, options.timeout_s)
    arguments = engine_arguments(str(path.resolve()), dtype, batch_size, tensor_parallel, options, seeded)
    logging.info("vLLM is starting with %s", path)
    if options.mode == "server":
        return lambda: start_server(arguments, names, options.timeout_s)
    return lambda: Offline(arguments)


def model_names(directory: str | Path, path: Path) -> list[str]:
    """What a server may call the model: as it was asked for, by its path, its folder's name or its hub id."""
    names = [str(directory), str(path), str(path.resolve())]
    if path.parent.name == "snapshots":  # of the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        names.append(path.parent.parent.name.removeprefix("models--").replace("--", "/"))
    else:
        names.append(path.parent.name if path.name == "export" else path.name)
    return list(dict.fromkeys(names))
