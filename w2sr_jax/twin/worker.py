"""A process that does one side's work when told: `python -m w2sr_jax.twin.worker`, JSON lines in and out.

in   {"side": NAME, "threads": N, ...}                 once: what the side's class takes
out  {"ready": {...}, "startup_seconds": ...}          once: imports, weights, optimizer; nothing compiled yet
in   {"do": "steps", "first": N, "count": M}
out  {"loss": [...], "grad_norm": [...], "seconds": [...]}
in   {"do": "generate", "load": NAME}
out  {"answers": [[token, ...], ...], "seconds": ...}
in   {"do": "mark_memory"}                             the peak is counted from here
in   {"do": "describe"}
out  {"versions": ..., "peak_bytes": ..., ...}
out  {"missing": PACKAGE}                              instead of ready, where a package is not installed
     {"error": "one line"}                             instead of any answer; the process ends

A process has one side, so that neither library's threads and memory are in the other's way.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from w2sr_jax.core.allocator import reserve

STARTED = time.perf_counter()
SIDES = {
    "jax_sft": ("w2sr_jax.twin.jax_train", "JaxSFT"),
    "jax_grpo": ("w2sr_jax.twin.jax_train", "JaxGRPO"),
    "jax_old_logprobs": ("w2sr_jax.twin.jax_train", "OldLogprobs"),
    "jax_generate": ("w2sr_jax.twin.engines", "JaxGenerate"),
    "torch_sft": ("w2sr_jax.twin.torch_train", "TorchSFT"),
    "torch_grpo": ("w2sr_jax.twin.torch_train", "TorchGRPO"),
    "torch_generate": ("w2sr_jax.twin.torch_generate", "TorchGenerate"),
    "trl_sft": ("w2sr_jax.twin.trl_sft", "TrlSFT"),
    "vllm_generate": ("w2sr_jax.twin.engines", "VllmGenerate"),
}


def serve(commands: Any, send: Any) -> None:
    """Answers every line until there is none."""
    request = json.loads(commands.readline())
    # XLA takes as many threads as there are cores to run on; torch has OMP_NUM_THREADS, and the same cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])
    module, name = SIDES[request["side"]]
    try:
        side = getattr(importlib.import_module(module), name)(request)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "w2sr_jax":
            raise
        send({"missing": (error.name or str(error)).split(".")[0]})
        return
    send({"ready": side.describe(), "startup_seconds": time.perf_counter() - STARTED})
    for line in commands:
        request = json.loads(line)
        match request["do"]:
            case "steps":
                found = [side.step(number) for number in range(request["first"], request["first"] + request["count"])]
                losses, norms, seconds = zip(*found)
                send({"loss": losses, "grad_norm": norms, "seconds": seconds})
            case "generate":
                answers, taken = side.generate(request["load"])
                send({"answers": answers, "seconds": taken})
            case "mark_memory":
                send({"marked": mark_memory()})
            case "describe":
                send(side.describe() | {"peak_bytes": peak_bytes()})
    if hasattr(side, "close"):
        side.close()


def mark_memory() -> bool:
    """Gives freed memory back and starts the count of the resident peak anew; False where the system has no such thing.

    What compiling left in the heap would otherwise count as the training step's.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def peak_bytes() -> int:
    """The largest resident size since the mark, or since the start."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Serves on stdin and stdout, of which no library sees either."""
    reserve(os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        serve(commands, send)
    except BrokenPipeError:
        return
    except Exception as error:
        sys.excepthook(*sys.exc_info())
        send({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]})
        sys.exit(1)


if __name__ == "__main__":
    main()
