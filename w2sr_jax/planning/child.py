"""Asks a process of its own to compile: its environment, its end, and what went wrong in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import logging

import w2sr_jax
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json, write_json
from w2sr_jax.core.topology import Topology, compile_environment

ROOT = Path(w2sr_jax.__file__).parent
ERROR = re.compile(r"\b(\w*(?:Error|Exception)\b: .*|F\d{4} .*|.*Check failed.*)")


def compile_step(
    request: dict[str, Any], topology: Topology, limit_s: float, kept: Path, *, save_hlo: bool = False
) -> dict[str, Any]:
    """The worker's answer to a request (`planning.worker.answer`).

    An answer is kept on disk under the request, the source code and the compiler's version; a search that was killed
    goes on from there.

    Args:
        limit_s: seconds after which the compilation is ended.
        kept: folder of the answers.
        save_hlo: keeps the program's text there as well, when it is compiled.

    Raises:
        UsageError: the model cannot be split over that mesh.
        W2SRError: there is no compiler for the chip, or it crashed, or ran out of this machine's memory or of time.
    """
    if topology.chip is not None and importlib.util.find_spec("libtpu") is None:
        raise W2SRError(
            f"config.topology: compiling for {topology.name} takes libtpu, which needs no TPU: `make setup EXTRAS=plan`"
        )
    path = kept / f"{_key(request)}.json"
    if path.exists():
        return read_json(path)
    mesh, train = request["mesh"], request["train"]
    how = " x ".join(f"{axis}={size}" for axis, size in mesh.items())
    logging.info(
        "compiling the %s step for %s: %s, grad_accum=%d, remat=%s",
        *(request["step"], topology.name, how, train["grad_accum"], train["remat"]),
    )
    kept.mkdir(parents=True, exist_ok=True)
    found = _ask(request | ({"hlo": str(path.with_suffix(".hlo"))} if save_hlo else {}), topology, limit_s)
    if "refused" in found:
        raise UsageError(found["refused"])
    write_json(path, found)
    return found


def _ask(request: dict[str, Any], topology: Topology, limit_s: float) -> dict[str, Any]:
    environment = compile_environment(topology, os.environ)
    places = [str(ROOT.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    what = f"compiling the {request['step']} step for {topology.name}"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "w2sr_jax.planning.worker"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        raise W2SRError(f"{what} took more than {limit_s:g} s (config.compile_limit_s)") from None
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    how = f"exit code {done.returncode}"
    if done.returncode < 0:
        how = f"killed by {signal.Signals(-done.returncode).name}"
        how += ", perhaps for want of memory" if done.returncode == -signal.SIGKILL else ""
    raise W2SRError(f"{what} failed ({how}): {last_error(done.stderr)}")


def last_error(log: str) -> str:
    """The last line of a log that names an error, or else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    found = [match[1] for match in map(ERROR.search, lines) if match]
    return (found or lines or ["it logged nothing"])[-1][:300]


def _key(request: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
    for path in sorted(ROOT.rglob("*.py")):
        digest.update(path.read_bytes())
    for package in ("jax", "jaxlib", "libtpu", "flax", "optax"):
        digest.update(_version(package).encode())
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
