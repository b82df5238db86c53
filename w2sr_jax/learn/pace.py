"""When a training loop sends its next step: an accelerator has it waiting, a CPU has one at a time."""

from __future__ import annotations

import time

import jax


def one_at_a_time() -> bool:
    """Whether a step is to be over before the next one is sent: on a CPU, which has nothing to do beside it.

    Two steps under way would have the temporary memory of both. An accelerator always has the next step in its queue.
    """
    return jax.default_backend() == "cpu"


def settled[Results](results: Results) -> Results:
    """What a step returned; if there is to be one at a time, once it is there and the step's temporary memory is free.

    XLA frees that a moment after it says that results are there: its thread gets a core for it if this one sleeps for
    a thousandth of the step's time.
    """
    if one_at_a_time():
        began = time.perf_counter()
        jax.block_until_ready(results)
        time.sleep((time.perf_counter() - began) / 1000)
    return results
