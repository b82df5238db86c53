"""Check the hosts before a run: versions, devices, all-reduce, disks, cache, clocks, memory.

Prints a table of pass, warn and fail with a remedy for each line that needs one, and writes it to doctor.json in the
workdir, which should be the directory in which the run is going to write. Ends with 1 if a line failed, on every host.
Run it with the run's own --distributed, --workdir and --config.mesh flags. The workdir is not claimed: a run may hold
it, and may begin in it afterwards.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from absl import logging

from w2sr_jax.core import processes, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import write_json
from w2sr_jax.core.tool_config import DoctorConfig
from w2sr_jax.health import devices, hosts, places
from w2sr_jax.health.check import FAIL, Check, joined, table

CONFIG = DoctorConfig

CLOCK_ROUNDS = 8


def main(config: DoctorConfig, workdir: str) -> int:
    """Runs all checks.

    Returns:
        the exit code, the same on every process: 0, or 1 if a check failed.
    """
    validate(config)
    checks = examine(config, Path(workdir))
    failed = any(check.status == FAIL for check in checks)
    if processes.is_writer():
        print(table(checks))
    found = {"failed": failed, "processes": processes.count(), "checks": [check.to_json() for check in checks]}
    with contextlib.suppress(OSError, W2SRError):  # a workdir that cannot be written is in the table
        write_json(Path(workdir) / "doctor.json", found)
    return 1 if failed else 0


def examine(config: DoctorConfig, workdir: Path) -> list[Check]:
    """All checks, the same list on every process."""
    who = [processes.who(place) for place in range(processes.count())]

    # ---- what each process finds for itself
    mine = [
        *here(config, workdir),
        devices.check_matmul(),
    ]
    facts = {
        "versions": hosts.package_versions(),
        "environment": {
            "decisive": hosts.environment(hosts.DECISIVE),
            "telling": hosts.environment(hosts.TELLING),
        },
        "devices": devices.local_devices(),
        "checks": [check.to_json() for check in mine],
    }
    told = processes.gather("doctor's facts", facts)
    local = [joined([Check(**one["checks"][place]) for one in told], who) for place in range(len(told[0]["checks"]))]

    # ---- what takes all of them
    stamps = []
    for _ in range(CLOCK_ROUNDS if processes.count() > 1 else 1):
        came = time.time()
        processes.barrier("doctor's clock")
        stamps.append((came, time.time()))
    logging.info("all-reduce over all devices")
    sums = processes.gather("doctor's sums", devices.all_reduce(config.all_reduce_mib))
    return [
        hosts.check_versions([one["versions"] for one in told], who),
        hosts.check_environment([one["environment"] for one in told], who),
        devices.check_devices([one["devices"] for one in told], who, config.devices, config.device_kind),
        devices.check_mesh(config.mesh),
        devices.check_sums(sums, who),
        devices.check_bandwidth(sums, config.min_all_reduce_gb_s),
        hosts.check_clocks(processes.gather("doctor's stamps", stamps), who, config.max_clock_skew_s),
        places.check_shared(workdir),
        *local,
    ]


def here(config: DoctorConfig, workdir: Path) -> list[Check]:
    """What this host needs."""
    vllm = config.engine == "vllm"
    return [
        places.check_workdir(workdir, config.min_free_disk_gib, config.min_write_mib_s, config.write_mib),
        *([places.check_bucket(config.bucket)] if config.bucket else []),
        places.check_cache(config.min_free_disk_gib),
        *([places.check_model(config.model)] if config.model else []),
        hosts.check_memory(config.min_free_memory_gib),
        hosts.check_open_files(config.min_open_files),
        hosts.check_shared_memory(config.min_shared_memory_gib, needed=vllm),
        hosts.check_vllm(needed=vllm),
    ]


if __name__ == "__main__":
    runtime.main_exit("doctor", main, CONFIG)
