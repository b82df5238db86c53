"""A side as its parent sees it: one process or one a GPU, with the environment that all sides share."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import w2sr_jax
from w2sr_jax.core.allocator import TUNABLES
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.rows import on_cpu
from w2sr_jax.engine.child import POLL_S, Child

ROOT = Path(w2sr_jax.__file__).parent.parent


class MissingPackage(W2SRError):
    """The side's process lacks a package; the message is its name."""


def environment(threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """What every side's process gets: the same threads and allocator, no cache of compiled programs."""
    dropped = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES")
    env = {name: value for name, value in base.items() if name not in dropped}
    if on_cpu(env):
        env["CUDA_VISIBLE_DEVICES"] = ""  # PyTorch would take a GPU that JAX is told to leave
    places = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH", ""))))
    return env | {
        "PYTHONPATH": places,
        "GLIBC_TUNABLES": TUNABLES["sft"],  # ours has it from `w2sr` itself, so both sides get it
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def generating(env: Mapping[str, str]) -> dict[str, str]:
    """The same for sides that generate: again both have what `w2sr` gives ours."""
    return {**env, "GLIBC_TUNABLES": TUNABLES["distill"]}


class Side:
    """Processes that do one side's work. Only the first rank's answers count; the others' are waited for.

    Args:
        name: what tables call it.
        request: the worker's first line.
        env: of `environment`.
        ranks: processes; more than one meet as torchrun's would.

    Raises:
        MissingPackage: what the side needs is not installed.
        W2SRError: it could not start.
    """

    def __init__(self, name: str, request: dict[str, Any], env: Mapping[str, str], ranks: int = 1):
        self.name, self.began = name, time.perf_counter()
        command = [sys.executable, "-P", "-m", "w2sr_jax.twin.worker"]
        self._children: list[Child] = []
        try:
            meeting = {} if ranks == 1 else {"MASTER_ADDR": "localhost", "MASTER_PORT": str(_free_port())}
            for rank in range(ranks):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)} if ranks > 1 else {}
                self._children.append(Child(command, name, {**env, **meeting, **place}))
            answer = self.ask(request)
            if "missing" in answer:
                raise MissingPackage(answer["missing"])
        except BaseException:
            self.close()
            raise
        self.about: dict[str, Any] = answer["ready"]
        self.startup_seconds: float = answer["startup_seconds"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request to every rank and waits for all, or for the first that fails: others may wait for that one.

        Raises:
            W2SRError: a process died or gave up; one line.
        """
        for child in self._children:
            child.send(request)
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(self._children):
            for rank, child in enumerate(self._children):
                if rank not in answers and child.has_said(POLL_S / len(self._children)):
                    answers[rank] = child.receive()
                    if "error" in answers[rank]:
                        raise W2SRError(f"{self.name}: {answers[rank]['error']}")
        return answers[0]

    def close(self) -> None:
        """Ends the processes."""
        for child in self._children:
            child.close(patience_s=10.0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]
