"""A strict environment for every test and the processes it starts: CPU, 8 fake devices, no network.

Most of the time of a test of a tiny model is compilation. So LLVM does not optimize, and compiled programs are kept in
pytest's cache directory, where other tests, the processes that tests start and the next run find them.
"""

import hashlib
import os
import re
from pathlib import Path

import pytest
from absl import flags

ROOT = Path(__file__).parents[1]


def processor() -> str:
    """What tells this kind of processor from others: a program that was compiled on another one may not run here."""
    known = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return hashlib.sha256("".join(re.findall(r"^(?:flags|Features)\b.*", known, re.MULTILINE)[:1]).encode()).hexdigest()


os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
    )
)
# Each of pytest's workers has a directory: JAX locks a shared one only if it also counts the files before every write.
KEPT = f"{processor()[:12]}-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "xla" / KEPT)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _flags_parsed():
    """Grain reads absl flags, which only app.run parses."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
