"""Random numbers that belong to a trace: neither the order of a file nor what else is in it changes them.

There is one exception. Traces of one problem and sample, as those of several teachers in one file, must not all draw
the same: they are counted in the order of their teachers' names, and all but the first draw by their number.
"""

from __future__ import annotations

import random

from w2sr_jax.core.records import Trace


def ordinals(traces: list[Trace]) -> list[int]:
    """The place of each among the traces of its problem and sample, by teacher: 0 where there is no other."""
    places, met = [0] * len(traces), dict[tuple[str, int], int]()
    for index in sorted(range(len(traces)), key=lambda i: traces[i].teacher):
        slot = (traces[index].problem_id, traces[index].sample)
        places[index] = met.get(slot, 0)
        met[slot] = places[index] + 1
    return places


def generator(seed: int, trace: Trace, purpose: str, ordinal: int = 0) -> random.Random:
    """The trace's own random stream for a purpose. The teacher's name itself plays no part: it may be a path."""
    number = f"#{ordinal}" if ordinal else ""
    return random.Random(f"{purpose}{number} {seed} {trace.sample} {trace.problem_id}")


def shuffled(seed: int, traces: list[Trace], purpose: str) -> list[int]:
    """Indices of the traces in random order. Of two files that share traces of one teacher, both put those alike."""
    places = ordinals(traces)
    return sorted(range(len(traces)), key=lambda i: (generator(seed, traces[i], purpose, places[i]).random(), i))
