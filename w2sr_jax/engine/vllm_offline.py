"""vLLM without a server: the process of vllm_worker.py, asked over JSON lines."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2sr_jax.core import allocator
from w2sr_jax.core.config import VllmConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.engine.child import Child, ChildDied
from w2sr_jax.engine.vllm_backend import Answer, EngineDied, OnAnswer, Request

WORKER = (sys.executable, "-P", "-m", "w2sr_jax.engine.vllm_worker")  # -P: a torch.py in the cwd must not be imported
EXTENSION = "w2sr_jax.engine.vllm_worker.WeightSync"
CLOSE_S = 10.0
NO_ROOM = ("memory", "OutOfMemory", "KV cache", "max_model_len")


class Offline:
    """See `vllm_backend.Backend`.

    Args:
        arguments: of vLLM's engine, JSON values.
    """

    def __init__(self, arguments: dict[str, Any]):
        self.places: Sequence[str] = ("offline",)
        self._slots = arguments["max_num_seqs"]
        self._child = Child(WORKER, "vllm", environment())
        try:
            self._child.send(arguments)
            ready = self._receive()["ready"]
        except W2SRError as error:
            self.close()
            raise W2SRError(explain(str(error))) from None
        except BaseException:
            self.close()
            raise
        self.about: dict[str, Any] = {"mode": "offline", "devices": arguments["tensor_parallel_size"]} | ready

    @property
    def pid(self) -> int:
        return self._child.pid

    def run(
        self, requests: Sequence[Request], params: dict[str, Any], on_answer: OnAnswer, place: str | None = None
    ) -> None:
        """See `vllm_backend.Backend.run`. vLLM works on the requests in their order, batch_size of them together."""
        waiting = dict.fromkeys(request.key for request in requests)
        try:
            asked = [[*each.key, each.prompt, each.seed, each.max_tokens] for each in requests]
            self._child.send({"do": "generate", "requests": asked, "params": params})
            while not (message := self._receive()).get("done"):
                index, sample = message["key"]
                del waiting[index, sample]
                on_answer(Answer((index, sample), message["token_ids"], message["logprobs"], message["stopped"]))
        except ChildDied as death:
            raise EngineDied(str(death), list(waiting)[: self._slots]) from None

    def update_weights(self, directory: str) -> None:
        self._child.send({"do": "update_weights", "directory": directory})
        self._receive()

    def close(self) -> None:
        self._child.close(patience_s=CLOSE_S)

    def _receive(self) -> dict[str, Any]:
        message = self._child.receive()
        if "refused" in message:
            raise W2SRError(f"vllm: {message['refused']}")
        if "error" in message:
            reason = message["error"]
            raise ChildDied(f"vllm: {self._child.last_error() if 'root cause' in reason else reason}")
        return message


def engine_arguments(
    model: str, dtype: str, batch_size: int, tensor_parallel: int, options: VllmConfig, seeded: bool = True
) -> dict[str, Any]:
    """What vLLM's engine is started with, be it alone or behind a server.

    Args:
        seeded: whether requests will have seeds of their own.
    """
    arguments = {
        "model": model,
        "dtype": dtype,
        "max_num_seqs": batch_size,
        "tensor_parallel_size": tensor_parallel,
        "max_model_len": options.max_model_len or -1,  # -1: what the model has, or what there is room for
        "generation_config": "vllm",  # the model's own must not change what is sampled
        "logprobs_mode": "raw_logprobs",  # of the plain softmax, before temperature and truncation
        "worker_extension_cls": EXTENSION,
    }
    if on_cpu():
        # Without compilation, and in one process: a start takes 9 to 13 s instead of 48 to 108. And no prompt is read
        # in pieces: vLLM 0.32 then takes back a seed's random number that it drew too early, which fails on a CPU.
        whole = {"enable_chunked_prefill": False} if seeded else {}
        return arguments | {"enforce_eager": not options.compile, "distributed_executor_backend": "uni"} | whole
    return arguments | {"gpu_memory_utilization": options.memory_fraction}


def environment() -> dict[str, str]:
    """For a process of vLLM: this package can be imported, nothing asks the hub, the heap is that of generation."""
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    defaults = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    if on_cpu():  # vLLM would take most of the memory for its cache
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    own = {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    if os.environ.get("GLIBC_TUNABLES") == allocator.KEPT:
        own["GLIBC_TUNABLES"] = allocator.HELD
    return defaults | os.environ | own


def on_cpu() -> bool:
    """Whether the vLLM that is installed was built for the CPU; it is not imported."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return "cpu" in importlib.metadata.version("vllm")
    return True  # the package vllm-cpu


def explain(reason: str) -> str:
    """The error of a start that failed, with what to do where memory is short."""
    if any(word in reason for word in NO_ROOM):
        return (
            f"{reason} -- lower config.decode.batch_size or config.decode.vllm.max_model_len, or give vLLM more memory "
            "(config.decode.vllm.memory_fraction; on CPU the variable VLLM_CPU_KVCACHE_SPACE, in GiB)"
        )
    return reason
