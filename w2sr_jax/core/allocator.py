"""Transparent huge pages for the heap of a process that trains or generates on a CPU.

XLA's CPU client allocates and frees large buffers all the time, and the kernel clears each page of 4 KiB anew. glibc
reads its tunables before a program's first line, so a process that lacks this one has to start itself again: same
process id, same arguments, once. GLIBC_TUNABLES set to anything, the empty string included, is left as it is.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence

from w2sr_jax.core.rows import accelerators, on_cpu

TUNABLES = "glibc.malloc.hugetlb=1"
STAGES = ("distill", "score", "sft", "grpo", "evaluate", "micro", "run")  # that compute with JAX at length


def wants_huge_pages(stage: str, argv: Sequence[str], env: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether a command should start itself again with TUNABLES.

    Args:
        argv: the stage's arguments; one that asks for help is answered at once.
    """
    if platform != "linux" or stage not in STAGES or "GLIBC_TUNABLES" in env:
        return False
    if any(word in ("--help", "-h", "-help", "--helpfull") for word in argv):
        return False
    return on_cpu(env) or not (accelerators(env) or importlib.util.find_spec("libtpu"))


def restart_with_huge_pages() -> None:
    """Starts this command again in this process; does not return."""
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
