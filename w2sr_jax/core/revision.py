"""Which commit of this code runs."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str | None:
    """The git commit of this code, None where the code does not lie in a git checkout of its own."""
    here = Path(__file__).resolve()
    try:
        # An installed copy may lie inside some other repository, whose commit would say nothing.
        for arguments in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            done = subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10)
            if done.returncode:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()
