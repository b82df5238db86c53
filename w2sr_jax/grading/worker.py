"""A grading process: `python -m w2sr_jax.grading.worker`, JSON lines in and out, nothing of JAX.

in   {"id": 1, "given": "pi/2", "gold": "\\\\dfrac{\\\\pi}{2}", "verifier": "math", "limit_s": 15}
out  {"ready": true} once, then for each line {"begun": 1}, once all is loaded that its verifier needs, and
     {"id": 1, "equal": true, "error": null}

The parent keeps the deadline and kills this process. Three things guard the machine even when the parent itself was
killed: the end of stdin ends an idle worker, an interval timer that the kernel delivers ends a busy one (no handler is
installed, so it works inside C code too), and an address-space limit ends one that grows.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

MEMORY_BYTES = 3 << 30


def main() -> None:
    """Serves until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not reach the protocol
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it closes stdin

    def send(message: dict[str, object]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        from w2sr_jax.core import gym
        from w2sr_jax.grading import symbolic
        from w2sr_jax.grading.equivalence import equivalent

        symbolic.math_verify_equal(r"\frac{x}{2}", "y")  # loads sympy and compiles math-verify's patterns
    except Exception as error:
        send({"ready": False, "error": f"{type(error).__name__}: {error}"})
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, hard))
    send({"ready": True})
    for line in sys.stdin:
        task = json.loads(line)
        verifier = task.get("verifier", "math")
        equal, error_text = False, None
        try:
            if verifier.startswith(gym.PREFIX):
                gym.entries_of(verifier)  # the first import takes seconds, on a crowded machine more than a deadline
            send({"begun": task["id"]})
            signal.setitimer(signal.ITIMER_REAL, task["limit_s"])
            if verifier.startswith(gym.PREFIX):
                equal = gym.is_solved(task["given"], verifier)
            else:
                equal = equivalent(task["given"], task["gold"], symbolic.math_verify_equal)
        except BaseException as error:  # math-verify raises BaseExceptions of its own, a scorer anything
            error_text = f"{type(error).__name__}: {error}"[:200]
        signal.setitimer(signal.ITIMER_REAL, 0)
        send({"id": task["id"], "equal": bool(equal), "error": error_text})


if __name__ == "__main__":
    main()
