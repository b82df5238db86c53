"""Which commit of this code runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("w2sr_jax", "benchmarks", "configs", "pyproject.toml", "uv.lock")  # of the checkout; what figures depend on


def is_dirty(root: Path = ROOT) -> bool:
    """Whether the code of a checkout differs from its commit, or git cannot say; accepted figures are no code."""
    try:
        command = ["git", "status", "--porcelain", "--", *CODE, ":(exclude)benchmarks/history.jsonl"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode != 0 or bool(done.stdout.strip())


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
