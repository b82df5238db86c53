"""Runs a command that must not outlive us: `python -m w2sr_jax.engine.tether COMMAND...`.

The end of stdin, which comes however the parent ends, kills the whole process group. What the command prints goes to
stderr.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Exits as the command does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=2)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    code = process.wait()
    if code < 0:
        print(f"the command was killed by {signal.Signals(-code).name}", file=sys.stderr)
    os._exit(code if code >= 0 else 128 - code)  # the thread may hold stdin


def _end_with_stdin() -> None:
    while os.read(0, 1 << 16):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
