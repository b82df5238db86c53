"""One file of traces from those of several teachers: as many as one teacher wrote, each word for word as it was.

For each (problem, sample) one of the teachers' traces is taken:

mix        any of them, by chance
majority   one whose answer has most votes
agreement  by chance, each as likely as its answer has votes
hygiene    one with the fewest hygiene flags

Votes are those of all traces of the problem, whichever teacher and sample. Among equals chance decides, with the seed:
neither the order of the teachers nor the length of a trace is a reason to take it. An ensemble of one is that teacher.
A trace that failed, and has no text, is taken only where no teacher has another.
"""

from __future__ import annotations

from collections import Counter

from w2sr_jax.core.records import Trace
from w2sr_jax.grading import hygiene
from w2sr_jax.traces.draws import generator
from w2sr_jax.traces.votes import answer_of, votes


def ensemble(teachers: list[list[Trace]], how: str, seed: int) -> tuple[list[Trace], dict[str, int]]:
    """The traces that are taken, in the order in which (problem, sample) pairs are first met.

    Args:
        teachers: the traces of each.
        how: mix, majority, agreement or hygiene.

    Returns:
        (traces, how many of them have more than one teacher to choose from, and more than one answer).
    """
    slots: dict[tuple[str, int], list[Trace]] = {}
    for traces in teachers:
        for trace in traces:
            slots.setdefault((trace.problem_id, trace.sample), []).append(trace)
    for slot, candidates in slots.items():
        slots[slot] = [trace for trace in candidates if trace.finish_reason != "failed"] or candidates
    counts = votes(trace for traces in teachers for trace in traces)
    chosen = [_choose(candidates, counts, how, seed) for candidates in slots.values()]
    return chosen, {
        "traces": len(chosen),
        "contested": sum(len(candidates) > 1 for candidates in slots.values()),
        "disagreeing": sum(len({answer_of(t) for t in candidates}) > 1 for candidates in slots.values()),
    }


def _choose(candidates: list[Trace], counts: dict[str, Counter[str]], how: str, seed: int) -> Trace:
    if len(candidates) == 1:
        return candidates[0]
    if how == "hygiene":
        merits = [-len(hygiene.flags(trace.response, trace.finish_reason)) for trace in candidates]
    else:
        problem = counts[candidates[0].problem_id]
        merits = [problem[answer] if (answer := answer_of(trace)) is not None else 0 for trace in candidates]
    if how == "agreement" and any(merits):
        weights = merits
    else:
        weights = [int(how in ("mix", "agreement") or merit == max(merits)) for merit in merits]
    return generator(seed, candidates[0], how).choices(candidates, weights)[0]
