"""Traces chosen by a score, a given number of them.

random       none: a draw, to compare the others with
majority     the share of the problem's traces that give the same answer; only traces with the problem's commonest
             answer qualify (labels without a label; a tie has none), and of these the draw decides
surprisal    mean negative log-likelihood under the student, from `w2sr score`
length       tokens of the response; its characters where any trace was edited, whose tokens are not known
steps        steps before the answer
consistency  share of the equations that hold; a trace without any has 0
difficulty   share of the problem's traces that are wrong

Equal scores are put in random order, which is the same for every score: selections differ in the score alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from absl import logging

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import EditedTrace, GradedTrace, Trace, TraceScore
from w2sr_jax.core.trace_config import SelectConfig
from w2sr_jax.traces import equations
from w2sr_jax.traces.draws import shuffled
from w2sr_jax.traces.steps import answer_span, steps
from w2sr_jax.traces.votes import answer_of, votes

Key = tuple[str, str, int]  # teacher, problem, sample


def select(
    traces: list[Trace], config: SelectConfig, seed: int, surprisal: Mapping[Key, TraceScore] | None = None
) -> tuple[list[Trace], dict[str, int]]:
    """The chosen traces, in the order of the file.

    Args:
        surprisal: by (teacher, problem, sample); traces without one do not qualify.

    Returns:
        (traces; counts: traces, qualified, wanted, kept). Where fewer qualify than are wanted, a warning says so.

    Raises:
        W2SRError: the score needs grades that the traces lack, or no trace qualifies.
    """
    scores = _scores(traces, config, surprisal or {})
    if config.only_correct:
        scores = {index: score for index, score in scores.items() if _graded(traces[index]).correct}
    if not scores:
        raise W2SRError(f"config.select: none of {len(traces)} traces qualifies by {config.by}")
    order = [index for index in shuffled(seed, traces, "select") if index in scores]
    wanted = config.size or len(order)
    size = min(wanted, len(order))
    if size < wanted:
        logging.warning("select by %s: %d of %d traces qualify, %d were wanted", config.by, size, len(traces), wanted)
    if config.by not in ("random", "majority"):
        order.sort(key=lambda index: scores[index], reverse=config.keep == "highest")
    first = (len(order) - size) // 2 if config.keep == "middle" else 0
    chosen = sorted(order[first : first + size])
    counts = {"traces": len(traces), "qualified": len(order), "wanted": wanted, "kept": len(chosen)}
    return [traces[i] for i in chosen], counts


def _scores(traces: list[Trace], config: SelectConfig, surprisal: Mapping[Key, TraceScore]) -> dict[int, float]:
    """Index -> score of the traces that qualify."""
    if config.by == "majority":
        return _majority(traces, config.min_agreement)
    if config.by == "difficulty":
        results: dict[str, list[bool]] = {}
        for trace in traces:
            results.setdefault(trace.problem_id, []).append(_graded(trace).correct)
        return {i: 1 - sum(r) / len(r) for i, r in enumerate(results[t.problem_id] for t in traces)}
    if config.by == "surprisal":
        keys = [(trace.teacher, trace.problem_id, trace.sample) for trace in traces]
        return {i: surprisal[key].surprisal for i, key in enumerate(keys) if key in surprisal}
    if config.by == "length":
        edited = any(isinstance(trace, EditedTrace) and trace.edit for trace in traces)
        return {i: len(trace.response) if edited else trace.response_tokens for i, trace in enumerate(traces)}
    if config.by == "steps":
        return {i: len(steps(trace.response)) for i, trace in enumerate(traces)}
    if config.by == "consistency":
        return {i: consistency(trace.response, config.modulus) for i, trace in enumerate(traces)}
    return dict.fromkeys(range(len(traces)), 0.0)


def consistency(response: str, modulus: int = 0) -> float:
    """Share of the equations before the answer that hold."""
    span = answer_span(response)
    found = equations.find(response, None if span is None else span[0])
    return sum(equations.holds(e, modulus) for e in found) / len(found) if found else 0.0


def _majority(traces: list[Trace], least: float) -> dict[int, float]:
    counts, sizes = votes(traces), dict[str, int]()
    for trace in traces:
        sizes[trace.problem_id] = sizes.get(trace.problem_id, 0) + 1
    found = {}
    for index, trace in enumerate(traces):
        ranked = counts[trace.problem_id].most_common(2)
        wins = ranked and ranked[0][0] == answer_of(trace) and (len(ranked) == 1 or ranked[0][1] > ranked[1][1])
        if wins and (share := ranked[0][1] / sizes[trace.problem_id]) >= least:
            found[index] = share
    return found


def _graded(trace: Trace) -> GradedTrace:
    if not isinstance(trace, GradedTrace):
        raise W2SRError("config.traces: difficulty and only_correct need graded traces, all.jsonl of `filter`")
    return trace
