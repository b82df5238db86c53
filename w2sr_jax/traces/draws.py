"""Random numbers that belong to a trace: neither the order of a file nor what else is in it changes them."""

from __future__ import annotations

import random

from w2sr_jax.core.records import Trace


def generator(seed: int, trace: Trace, purpose: str) -> random.Random:
    """The trace's own random stream for a purpose. The teacher's name plays no part: it may be a path."""
    return random.Random(f"{purpose} {seed} {trace.sample} {trace.problem_id}")


def shuffled(seed: int, traces: list[Trace], purpose: str) -> list[int]:
    """Indices of the traces in random order. Of two files that share traces, both put those in the same order."""
    return sorted(range(len(traces)), key=lambda i: (generator(seed, traces[i], purpose).random(), i))
