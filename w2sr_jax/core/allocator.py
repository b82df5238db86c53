"""The heap of a process that computes on a CPU: in huge pages, and not given back.

XLA's CPU client allocates its temporary memory anew for every program it runs, hundreds of MB for a training step. By
itself glibc takes that from the kernel each time and gives it back, and the kernel clears every page again. Where the
heap is HELD, what was freed stays with the process, but for what XLA's own threads take, whose arenas are small. That
is enough to generate: caches grow, and steps free little. To train, the heap is KEPT: it has one arena then.

A large buffer that is freed leaves a hole, and does not fit there again if anything small has been taken from it. So
small allocations go first to the holes that `reserve` makes, and glibc sets no freed chunk aside (tcache_count and
mxfast): what a buffer's alignment cuts off must become one with the hole again, or that is too small by a few bytes.

glibc reads its tunables before a program's first line, so a process that lacks them has to start itself again: same
process id, same arguments, once. GLIBC_TUNABLES set to anything, the empty string included, is left as it is.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence

from w2sr_jax.core.rows import accelerators, on_cpu

HELD = f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={1 << 36}"  # in huge pages
KEPT = f"{HELD}:glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
TUNABLES = {  # of the stages that compute with JAX at length
    **dict.fromkeys(("sft", "grpo", "micro", "run"), KEPT),
    **dict.fromkeys(("distill", "score", "evaluate"), HELD),
}
RESERVE, RESERVES = 512 << 20, 4  # bytes of one hole, and how many: each smaller than the buffers whose holes it spares


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


def reserve(env: Mapping[str, str]) -> None:
    """Where the heap is KEPT, makes holes in it for small allocations to be taken from; the process has just begun.

    glibc takes the smallest hole that fits, so larger ones stay whole as long as these last. No page stands behind
    them before they are used.
    """
    if env.get("GLIBC_TUNABLES") != KEPT:
        return
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    holes = []
    for _ in range(RESERVES):
        holes.append(libc.malloc(RESERVE))
        libc.malloc(1 << 20)  # stays between two holes, or they would be one; fits no hole that is there already
    for hole in holes:
        libc.free(hole)
