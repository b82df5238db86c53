"""The heap of a process that trains or generates on a CPU: in huge pages, and kept where it trains.

XLA's CPU client allocates its temporary memory anew for every program it runs, hundreds of MB for a training step. By
itself glibc takes that from the kernel each time and gives it back, and the kernel clears every page again. With KEPT
what was freed stays with the process. It has one arena then, since XLA allocates in threads of its own, whose arenas
cannot hold so much; steps of decoding, which allocate little and often, are slower so and do without.

glibc reads its tunables before a program's first line, so a process that lacks them has to start itself again: same
process id, same arguments, once. GLIBC_TUNABLES set to anything, the empty string included, is left as it is.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence

from w2sr_jax.core.rows import accelerators, on_cpu

HUGE_PAGES = "glibc.malloc.hugetlb=1"
KEPT = f"{HUGE_PAGES}:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={1 << 36}"
TUNABLES = {  # of the stages that compute with JAX at length
    **dict.fromkeys(("sft", "grpo", "micro", "run"), KEPT),
    **dict.fromkeys(("distill", "score", "evaluate"), HUGE_PAGES),
}


def wants_tunables(stage: str, argv: Sequence[str], env: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether a command should start itself again with its TUNABLES.

    Args:
        argv: the stage's arguments; one that asks for help is answered at once.
    """
    if platform != "linux" or stage not in TUNABLES or "GLIBC_TUNABLES" in env:
        return False
    if any(word in ("--help", "-h", "-help", "--helpfull") for word in argv):
        return False
    return on_cpu(env) or not (accelerators(env) or importlib.util.find_spec("libtpu"))


def restart_with_tunables(stage: str) -> None:
    """Starts this command again in this process; does not return."""
    os.environ["GLIBC_TUNABLES"] = TUNABLES[stage]
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
