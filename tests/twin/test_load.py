"""Whose processor time it was."""

import os
import subprocess
import sys
from pathlib import Path

from w2sr_jax.twin.load import Others, _own_seconds

# A child that ends at once, and leaves one behind, which it names, that works for a second.
LEAVES_ONE = """
import subprocess, sys
work = "import time; began = time.process_time()\\nwhile time.process_time() < began + 1: pass"
print(subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.DEVNULL).pid)
"""


def test_what_children_leave_behind_is_not_the_work_of_others():
    own = _own_seconds()
    with Others() as others:
        subprocess.run([sys.executable, "-c", LEAVES_ONE], check=True, stdout=subprocess.DEVNULL)
    assert 0.0 <= others.share <= 1.0
    assert _own_seconds() - own > 0.9


def test_afterwards_orphans_are_again_the_business_of_init():
    with Others():
        pass
    left = subprocess.run([sys.executable, "-c", LEAVES_ONE], check=True, stdout=subprocess.PIPE, text=True)
    assert _parent(int(left.stdout)) != os.getpid()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
