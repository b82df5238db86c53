"""A response in pieces: its reasoning, its steps, and its final answer."""

from __future__ import annotations

import itertools
import re

from w2sr_jax.core.boxes import BOX, last_box_span
from w2sr_jax.traces import equations

Span = tuple[int, int]
_LINE = re.compile(r"[^\n]*\n+")
# A line ends a sentence too, and what is blank before the first one is a piece: pieces leave nothing out.
_SENTENCE = re.compile(r"\n+|[^\n]+?(?:[.!?](?:\s+|$)|\n+)")


def answer_span(text: str) -> Span | None:
    r"""Where the last complete `\boxed{...}` begins and ends, macro and braces included; None without one."""
    inside = last_box_span(text)
    if inside is None:
        return None
    start = max(match.start() for match in BOX.finditer(text, 0, inside[0]))
    return start, inside[1] + text.startswith("}", inside[1])


def reasoning_end(text: str) -> int:
    """Where the reasoning ends: at the last box, at the beginning of the line or sentence that leads up to it."""
    span = answer_span(text)
    if span is None:
        return len(text)
    ends = [end for start, end in _pieces(_LINE, text, span[0]) + _pieces(_SENTENCE, text, span[0])]
    return max(ends, default=span[0])


def steps(text: str) -> list[Span]:
    """The steps before the final answer, side by side: lines, or sentences, or equations, whichever are two or more."""
    span = answer_span(text)
    end = len(text) if span is None else span[0]
    for pattern in (_LINE, _SENTENCE):
        found = _pieces(pattern, text, end)
        if len(found) > 1:
            return found
    chain = equations.find(text, end)
    if len(chain) < 2:
        return []
    first, second = chain[:2]
    # In a chain the first number is where all begins, and belongs to no step.
    chained = second.start == first.result
    begin = first.start + (len(equations.number_at(text, first.start)) if chained else 0)
    borders = [begin, *(equation.end for equation in chain)]
    return list(itertools.pairwise(borders))


def _pieces(pattern: re.Pattern[str], text: str, end: int) -> list[Span]:
    """Side by side; blank ones belong to the piece before, and what the last one leaves unfinished to none."""
    found: list[Span] = []
    position = 0
    # Not finditer: where nothing more is found it would look again from every character, up to the end each time.
    while match := pattern.match(text, position, end):
        position = match.end()
        if match[0].strip() or not found:
            found.append(match.span())
        else:
            found[-1] = (found[-1][0], position)
    return [piece for piece in found if text[slice(*piece)].strip()]
