"""Places that a run reads and writes: the workdir, a bucket, the Hugging Face cache and the model in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path

from w2sr_jax.core import processes
from w2sr_jax.core.topology import GIB
from w2sr_jax.health.check import FAIL, PASS, WARN, Check

MIB = 1 << 20
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # of a model's weights


def check_workdir(directory: Path, least_free_gib: float, least_mib_s: float, mib: int) -> Check:
    """Writes a file the way that checkpoints and results are written, reads it back, and removes it.

    Args:
        directory: made when absent.
        mib: size of the file.
    """
    part, path = (directory / f".doctor.{processes.index()}{suffix}" for suffix in (".part", ".probe"))
    block, written = secrets.token_bytes(MIB), hashlib.sha256()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
        if free < least_free_gib * GIB:
            found = f"{free / GIB:.1f} GiB free in {directory}, {least_free_gib:g} wanted"
            return Check("workdir", FAIL, found, "free space there, or take another --workdir")
        began = time.monotonic()
        with open(part, "wb") as file:
            for _ in range(mib):
                file.write(block)
                written.update(block)
            file.flush()
            os.fsync(file.fileno())
        seconds = time.monotonic() - began
        part.replace(path)
        with open(path, "rb") as file:
            read = hashlib.file_digest(file, "sha256")
    except OSError as error:
        remedy = "make it writable, free space there, or take another --workdir"
        return Check("workdir", FAIL, f"{directory}: {error.strerror or error}", remedy)
    finally:
        for left in (part, path):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
    if read.digest() != written.digest():
        return Check("workdir", FAIL, f"{directory}: gives back other bytes than were written", "do not use this disk")
    found = f"{free / GIB:.1f} GiB free, {mib / seconds:.0f} MiB/s with fsync"
    if mib / seconds < least_mib_s:
        remedy = "checkpoints will hold training up: take a faster disk, or raise --config.checkpoint.every_steps"
        return Check("workdir", WARN, f"{found}, {least_mib_s:g} wanted", remedy)
    return Check("workdir", PASS, found)


def check_shared(directory: Path) -> Check:
    """Whether all processes see one and the same workdir; every process calls it, and gets the same check."""
    path = directory / ".doctor.token"
    token = secrets.token_hex(8)
    if processes.is_writer():
        with contextlib.suppress(OSError):
            path.write_text(token)
    tokens = processes.gather("doctor's token", token)
    try:
        seen = path.read_text()
    except OSError:
        seen = ""
    sees = processes.gather("who sees the workdir", seen == tokens[0])
    if processes.is_writer():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    if blind := [processes.who(place) for place, one in enumerate(sees) if not one]:
        found = f"{', '.join(blind[:4])} of {len(sees)} processes: do not see what process 0 writes in {directory}"
        return Check("shared workdir", FAIL, found, "mount the same disk or bucket there on every host")
    return Check("shared workdir", PASS, f"all of {len(sees)} processes see it" if len(sees) > 1 else "one process")


def check_bucket(address: str) -> Check:
    """Writes, reads and removes a small object under `address`, by the library that Orbax uses for such paths."""
    from etils import epath

    data = secrets.token_hex(16)
    try:
        probe = epath.Path(address) / f".doctor.{processes.index()}.probe"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(data)
        back = probe.read_text()
        probe.unlink()
    except ImportError as error:
        remedy = "mount it (launch/host.sh --bucket) and give the directory, or install the package"
        return Check("bucket", FAIL, f"{address}: this installation cannot open such paths ({error})", remedy)
    except Exception as error:  # each backend raises its own
        why = " ".join(str(error).split())[:200]
        remedy = "give this host's account the right to write objects there (roles/storage.objectUser)"
        return Check("bucket", FAIL, f"{address}: {type(error).__name__}: {why}", remedy)
    if back != data:
        return Check("bucket", FAIL, f"{address}: gives back another text than was written", "look at its caches")
    return Check("bucket", PASS, f"{address}: written, read and removed")


def check_cache(least_free_gib: float) -> Check:
    """The Hugging Face cache, where models that are given by a hub id are put."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    offline = ", offline" if constants.HF_HUB_OFFLINE else ""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f".doctor.{os.getpid()}.probe"
        probe.write_text("probe")
        probe.unlink()
        free = shutil.disk_usage(cache).free
    except OSError as error:
        remedy = "set HF_HOME to a directory that can be written"
        return Check("hf cache", WARN if offline else FAIL, f"{cache}: {error.strerror or error}{offline}", remedy)
    found = f"{cache}, {free / GIB:.1f} GiB free{offline}"
    if free < least_free_gib * GIB and not offline:
        remedy = "free space there, or set HF_HOME to a larger disk"
        return Check("hf cache", FAIL, f"{found}, {least_free_gib:g} wanted", remedy)
    return Check("hf cache", PASS, found)


def check_model(model: str) -> Check:
    """Whether a model is at hand: a directory, a training workdir, or a hub id in the cache."""
    for place in (Path(model) / "export", Path(model)):
        if (place / "config.json").is_file():
            return _weights(place)
    if Path(model).exists() or model.count("/") != 1 or model.startswith((".", "/")):
        return Check("model", FAIL, f"{model}: no model directory on this host", "copy it here, to the same path")
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return Check("model", FAIL, f"{model}: neither a directory nor a hub id", "correct --config.model")
    part = ""
    if isinstance(found, str):
        absent = _absent(Path(found).parent)
        if not absent or any((Path(found).parent / name).is_symlink() for name in absent):
            return _weights(Path(found).parent)
        part = " as a whole"  # a run downloads the rest
    if constants.HF_HUB_OFFLINE:
        remedy = "unset HF_HUB_OFFLINE, or fill the cache first: hf download " + model
        return Check("model", FAIL, f"{model}: not in the cache{part}, and HF_HUB_OFFLINE is set", remedy)
    remedy = "every host will download it at the start; hf download does it before"
    return Check("model", WARN, f"{model}: neither a directory here nor in the cache{part} yet", remedy)


def _weights(directory: Path) -> Check:
    if absent := _absent(directory):
        if not any(directory.glob("*.safetensors*")):
            remedy = "w2sr reads nothing else: convert it first"
            return Check("model", FAIL, f"{directory}: no safetensors files", remedy)
        remedy = "fetch the model again, or copy it once more"
        return Check("model", FAIL, f"{directory}: not there, or not to be read: {', '.join(absent)}", remedy)
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors") if path.is_file())
    return Check("model", PASS, f"{directory}, {size / GIB:.2f} GiB of weights")


def _absent(directory: Path) -> list[str]:
    """The names of those files, of all that loading the weights will look for, that are not there.

    A link to nothing, which is what a damaged cache holds, is not there either.
    """
    names, index = {SINGLE}, directory / INDEX
    if index.is_file() or index.is_symlink():
        try:
            names = set(map(str, json.loads(index.read_bytes())["weight_map"].values()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return [INDEX]
    return sorted(name for name in names if not (directory / name).is_file())
