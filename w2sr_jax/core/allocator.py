"""The heap of a process that trains or generates on a CPU: in huge pages, and kept.

XLA's CPU client allocates its temporary memory anew for every program it runs, hundreds of MB for a training step. By
itself glibc takes that from the kernel each time and gives it back, and the kernel clears every page again. With
TUNABLES what was freed stays with the process, in pages of 2 MiB. One arena, since XLA allocates in threads of its own,
whose arenas cannot hold so much.

glibc reads its tunables before a program's first line, so a process that lacks them has to start itself again: same
process id, same arguments, once. GLIBC_TUNABLES set to anything, the empty string included, is left as it is.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence

from w2sr_jax.core.rows import accelerators, on_cpu

TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"hugetlb": 1, "arena_max": 1, "mmap_max": 0, "trim_threshold": 1 << 36}.items()
)
STAGES = ("distill", "score", "sft", "grpo", "evaluate", "micro", "run")  # that compute with JAX at length


def wants_tunables(stage: str, argv: Sequence[str], env: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether a command should start itself again with TUNABLES.

    Args:
        argv: the stage's arguments; one that asks for help is answered at once.
    """
    if platform != "linux" or stage not in STAGES or "GLIBC_TUNABLES" in env:
        return False
    if any(word in ("--help", "-h", "-help", "--helpfull") for word in argv):
        return False
    return on_cpu(env) or not (accelerators(env) or importlib.util.find_spec("libtpu"))


def restart_with_tunables() -> None:
    """Starts this command again in this process; does not return."""
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
