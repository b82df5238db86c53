"""Generation by our engines: the JAX engine, and vLLM in a process of its own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from w2sr_jax.core.config import VllmConfig
from w2sr_jax.engine.base import Generator, Sampling


class JaxGenerate:
    """Answers the prompts of a request with the JAX engine.

    Args:
        request: model (a directory), dtype, batch (sequences decoded together), prompts (token ids), loads (name ->
            max_tokens, temperature, prompts: how many of them it asks, and limits, if each has its own).
    """

    def __init__(self, request: dict[str, Any]):
        self.prompts = request["prompts"]
        self.counts = {name: load["prompts"] for name, load in request["loads"].items()}
        self.loads = {name: sampling(load) for name, load in request["loads"].items()}
        self.limits = {name: load.get("limits") for name, load in request["loads"].items()}
        self.engine = self.open(request)

    def open(self, request: dict[str, Any]) -> Generator:
        from w2sr_jax.engine.jax_engine import JaxEngine
        from w2sr_jax.twin.jax_train import set_precision

        set_precision(request["dtype"])
        return JaxEngine(request["model"], request["dtype"], batch_size=request["batch"])

    def generate(self, name: str) -> tuple[list[list[int]], float]:
        """(every answer's tokens, seconds)."""
        began = time.perf_counter()
        found = self.engine.generate(self.prompts[: self.counts[name]], self.loads[name], limits=self.limits[name])
        return [group[0].token_ids for group in found], time.perf_counter() - began

    def close(self) -> None:
        """Waits for the processes that the engine has: their time is known only then."""
        self.engine.close()

    def describe(self) -> dict[str, Any]:
        """What ran."""
        from w2sr_jax.twin.jax_train import describe

        return describe()


def sampling(load: dict[str, Any]) -> Sampling:
    """The engine's view of a load."""
    return Sampling(max_tokens=load["max_tokens"], temperature=load["temperature"])


def batches(prompts: Sequence[list[int]], size: int) -> list[list[int]]:
    """Which prompts transformers answers together: longest first, as the JAX engine orders them."""
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    return [order[first : first + size] for first in range(0, len(order), size)]


class VllmGenerate(JaxGenerate):
    """The same with vLLM as for throughput: compiled, and without a seed for each request, which draws row by row.

    Our stages start it eagerly and seed it: a start that takes seconds, and answers that can be had again.
    """

    def open(self, request: dict[str, Any]) -> Generator:
        from w2sr_jax.engine.vllm_engine import VllmEngine
        from w2sr_jax.engine.vllm_start import is_installed

        if not is_installed():
            raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
        # Every side compiles anew; vLLM does so in a cache, which must be there, and must be empty.
        os.environ.pop("TORCHINDUCTOR_FORCE_DISABLE_CACHES", None)
        self.cache = tempfile.TemporaryDirectory(prefix="w2sr-vllm-")
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": self.cache.name, "VLLM_CACHE_ROOT": self.cache.name}
        options = VllmConfig(compile=True, restarts=0)  # one that dies is left out, not measured again
        return VllmEngine(
            request["model"], request["dtype"], batch_size=request["batch"], options=options, seeded=False
        )

    def describe(self) -> dict[str, Any]:
        """What ran; its memory is another process's."""
        about = self.engine.describe()
        return {
            "versions": {"vllm": about["version"]},
            "platform": platform_of(about["device_kind"]),
            "device": about["device_kind"],
            "devices": 1,
            "device_peak_bytes": None,
            "settings": "compiled, without seeds",
        }


def platform_of(device_kind: str) -> str:
    """As JAX names it, of the device that vLLM names."""
    if device_kind == "cpu":
        return "cpu"
    return "tpu" if device_kind.upper().startswith("TPU") else "gpu"
