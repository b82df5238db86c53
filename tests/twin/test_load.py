"""Whose processor time it was."""

import subprocess
import sys

from w2sr_jax.twin.load import Others, _own_seconds

# A child that ends at once, and leaves one behind that works for a second.
LEAVES_ONE = """
import subprocess, sys
work = "import time; began = time.process_time()\\nwhile time.process_time() < began + 1: pass"
subprocess.Popen([sys.executable, "-c", work])
"""


def test_what_children_leave_behind_is_not_the_work_of_others():
    others, own = Others(), _own_seconds()
    subprocess.run([sys.executable, "-c", LEAVES_ONE], check=True)
    assert 0.0 <= others.share() <= 1.0
    assert _own_seconds() - own > 0.9
