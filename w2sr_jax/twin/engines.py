"""Generation by our engines: the JAX engine, and vLLM in a process of its own."""

from __future__ import annotations

import time
from typing import Any

from w2sr_jax.engine.base import Generator, Sampling


class JaxGenerate:
    """Answers the prompts of a request with the JAX engine.

    Args:
        request: model (a directory), dtype, batch (sequences decoded together), prompts (token ids), loads (name ->
            fields of Sampling).
    """

    def __init__(self, request: dict[str, Any]):
        self.prompts = request["prompts"]
        self.loads = {
            name: Sampling(**(load | {"stop_token_ids": tuple(load["stop_token_ids"])}))
            for name, load in request["loads"].items()
        }
        self.engine = self.open(request)

    def open(self, request: dict[str, Any]) -> Generator:
        from w2sr_jax.engine.jax_engine import JaxEngine

        return JaxEngine(request["model"], request["dtype"], batch_size=request["batch"])

    def generate(self, name: str) -> tuple[list[list[int]], float]:
        """(every answer's tokens, seconds)."""
        began = time.perf_counter()
        found = self.engine.generate(self.prompts, self.loads[name])
        return [group[0].token_ids for group in found], time.perf_counter() - began

    def describe(self) -> dict[str, Any]:
        """What ran."""
        from w2sr_jax.twin.jax_train import describe

        return describe()


class VllmGenerate(JaxGenerate):
    """The same with vLLM."""

    def open(self, request: dict[str, Any]) -> Generator:
        from w2sr_jax.engine.vllm_engine import VllmEngine
        from w2sr_jax.engine.vllm_start import is_installed

        if not is_installed():
            raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
        return VllmEngine(request["model"], request["dtype"], batch_size=request["batch"])

    def describe(self) -> dict[str, Any]:
        """What ran; its memory is another process's."""
        about = self.engine.describe()
        return {"versions": {"vllm": about["version"]}, "device": "", "devices": 1, "device_peak_bytes": None}
