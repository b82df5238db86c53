"""What the grading tests share: which processes are ours."""

import os
from pathlib import Path

import pytest


def _child_pids() -> set[int]:
    """Live or unreaped grading workers of this process."""
    found = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        for pid in (task / "children").read_text().split():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if b"w2sr_jax.grading.worker" in command or state == "Z":
                found.add(int(pid))
    return found


@pytest.fixture
def children():
    """A function: the grading workers (and zombies) that were started since the test began."""
    before = _child_pids()
    return lambda: _child_pids() - before
