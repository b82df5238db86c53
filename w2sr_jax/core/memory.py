"""How much memory is in use, and how much is there: of the devices and of the host."""

from __future__ import annotations

import os
from pathlib import Path


def memory_metrics() -> dict[str, float]:
    """What the metrics of a step say of memory on this host; what the platform does not tell is left out.

    Returns:
        hbm_bytes_in_use and hbm_peak_bytes of the fullest local device (its allocator's, since the process began), and
        host_rss_bytes of this process.
    """
    import jax

    found = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    values = {
        name: float(max(stats[key] for stats in found))
        for name, key in (("hbm_bytes_in_use", "bytes_in_use"), ("hbm_peak_bytes", "peak_bytes_in_use"))
        if found and all(key in stats for stats in found)
    }
    if (rss := host_rss_bytes()) is not None:
        values["host_rss_bytes"] = float(rss)
    return values


def host_rss_bytes() -> int | None:
    """Resident memory of this process; None where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def host_free_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that may still be taken here: the host's, or what its container (cgroup v2) leaves; None if unknown."""
    free = []
    try:
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line)
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            used = int((cgroup / "memory.current").read_text())
            free.append(max(0, int(limit) - used + _idle_cache(cgroup)))
    except (OSError, ValueError):
        pass
    return min(free) if free else None


def _idle_cache(cgroup: Path) -> int:
    """Bytes of files that a container has read and no longer uses, which the kernel gives up when memory is wanted."""
    try:
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return int(stat["inactive_file"])
    except (OSError, KeyError, ValueError):
        return 0
