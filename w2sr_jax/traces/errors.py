r"""Errors put into traces on purpose, one kind at a time, at a given rate; every one is recorded and can be undone.

slip     one result of a calculation is off by 1 to 9, and what follows goes on from it
answer   the final answer alone is another one
drop     one step is missing
shuffle  the steps stand in another order
rule     one wrong rule, the same everywhere: every product is off by one, and what follows goes on from it

An error never makes a wrong trace right, and `answer` leaves none right. Problems and their answers are not touched:
these are traces only.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from w2sr_jax.core.boxes import last_box_span
from w2sr_jax.core.records import EditedTrace, Problem, Trace
from w2sr_jax.core.trace_config import InjectConfig
from w2sr_jax.grading.normal import key
from w2sr_jax.grading.verdict import decide
from w2sr_jax.traces import equations
from w2sr_jax.traces.draws import generator, ordinals, shuffled
from w2sr_jax.traces.edits import edited
from w2sr_jax.traces.steps import answer_span, steps

ATTEMPTS = 8  # draws of an error that would leave a trace right which must not be
_INTEGER = re.compile(rf"(?P<sign>(?:[-+−]\s*)?)(?P<digits>(?<!\d)\d{{1,{equations.LONGEST}}}(?!\d))")
_TERM_BEFORE = re.compile(r"[\w)}]\s*$")
_LETTER = re.compile(r"\(?([A-H])\)?")

# (response, random numbers, config) -> (changed response, what was done), or None where it cannot be done
Error = Callable[[str, random.Random, InjectConfig], tuple[str, str] | None]


def inject(
    traces: list[Trace], problems: Mapping[str, Problem], config: InjectConfig, seed: int
) -> tuple[list[EditedTrace], dict[str, int]]:
    """Errors in round(rate * traces) of the traces, or in all that can have one if those are fewer.

    With one seed, traces that have an error at some rate have it at every higher rate, whatever its kind: rates differ
    in nothing else.

    Args:
        problems: by id.

    Returns:
        (all traces in their order; counts: traces, wanted, touched, and impossible: passed over on the way).
    """
    wanted, found = round(config.rate * len(traces)), dict[int, EditedTrace]()
    impossible, place = 0, ordinals(traces)
    for index in shuffled(seed, traces, "touched"):
        if len(found) == wanted:
            break
        trace = traces[index]
        rng = generator(seed, trace, config.kind, place[index])
        changed = _with_error(trace, problems[trace.problem_id], config, rng)
        if changed is None:
            impossible += 1
        else:
            found[index] = changed
    made = [found.get(i) or edited(trace, trace.response, "") for i, trace in enumerate(traces)]
    return made, {"traces": len(traces), "wanted": wanted, "touched": len(found), "impossible": impossible}


def _with_error(trace: Trace, problem: Problem, config: InjectConfig, rng: random.Random) -> EditedTrace | None:
    may_be_right = config.kind != "answer" and _right(trace.response, problem)
    for _ in range(ATTEMPTS):
        made = ERRORS[config.kind](trace.response, rng, config)
        if made is None:
            return None
        response, what = made
        if response != trace.response and (may_be_right or not _right(response, problem)):
            return edited(trace, response, f"{config.kind}: {what}")
    return None


def _right(response: str, problem: Problem) -> bool:
    """Whether the answer is the published one; where only a grading process could tell, whether it reads the same."""
    extracted, grade = decide(response, problem.answer, problem.verifier)
    return grade.correct if grade is not None else key(extracted or "") == key(problem.answer)


def slip(text: str, rng: random.Random, config: InjectConfig) -> tuple[str, str] | None:
    """One result off by 1 to 9."""
    found = _before_answer(text)
    if not found:
        return None
    place = rng.choice(found).result
    return _off(text, {place: rng.choice([-1, 1]) * rng.randint(1, 9)}, config)


def rule(text: str, rng: random.Random, config: InjectConfig) -> tuple[str, str] | None:
    """Every product off by one."""
    offsets = {equation.result: 1 for equation in _before_answer(text) if set(equation.operations) == {"*"}}
    return _off(text, offsets, config) if offsets else None


def answer(text: str, rng: random.Random, config: InjectConfig) -> tuple[str, str] | None:
    """Another answer in the last box: its first number off by 1 to 9, or another letter.

    What stands before an `=` may be a name, as in `f(2) = 7`: there the first number is looked for behind it.
    """
    span = last_box_span(text)
    if span is None:
        return None
    old = text[slice(*span)]
    if found := _INTEGER.search(old, old.rfind("=") + 1) or _INTEGER.search(old):
        number = int(found["digits"]) * (-1 if found["sign"].startswith(("-", "−")) else 1)
        number += rng.choice([-1, 1]) * rng.randint(1, 9)
        fresh = equations.in_manner_of(number, found["digits"], config.modulus)
        if found["sign"] and fresh[0] != "-" and _TERM_BEFORE.search(old, 0, found.start()):  # `x-5` becomes `x+2`
            fresh = f"+{fresh}"
        new = old[: found.start()] + fresh + old[found.end() :]
    elif letter := _LETTER.fullmatch(old.strip()):
        new = old.replace(letter[1], rng.choice([c for c in "ABCD" if c != letter[1]]))
    else:
        return None
    return text[: span[0]] + new + text[span[1] :], f"{old} became {new}"


def drop(text: str, rng: random.Random, config: InjectConfig) -> tuple[str, str] | None:
    """One step missing."""
    found = steps(text)
    if len(found) < 2:
        return None
    number = rng.randrange(len(found))
    start, end = found[number]
    return text[:start] + text[end:], f"step {number + 1} of {len(found)}"


def shuffle(text: str, rng: random.Random, config: InjectConfig) -> tuple[str, str] | None:
    """The steps in another order."""
    found = steps(text)
    if len(found) < 2:
        return None
    order = list(range(len(found)))
    while order == sorted(order):
        rng.shuffle(order)
    pieces = [text[slice(*found[i])] for i in order]
    changed = text[: found[0][0]] + "".join(pieces) + text[found[-1][1] :]
    return changed, f"steps in the order {' '.join(str(i + 1) for i in order)}"


ERRORS: dict[str, Error] = {"slip": slip, "answer": answer, "drop": drop, "shuffle": shuffle, "rule": rule}


def _before_answer(text: str) -> list[equations.Equation]:
    span = answer_span(text)
    return [found for found in equations.find(text, None if span is None else span[0]) if found.plain]


def _off(text: str, offsets: dict[int, int], config: InjectConfig) -> tuple[str, str] | None:
    try:
        changed = equations.rewrite(text, offsets, modulus=config.modulus, carry=config.carry)
    except (ValueError, OverflowError):  # in a text that loops, what is carried on outgrows what Python writes
        return None
    places = ", ".join(f"{equations.number_at(text, at)} {offset:+d}" for at, offset in offsets.items())
    return changed, places
