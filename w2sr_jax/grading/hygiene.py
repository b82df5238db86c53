r"""Trace health: what tells that a response is a bad example to learn from, whether or not its answer is right.

Students trained on traces that loop, run to the length limit, ramble on after their answer or hold stray scripts and
web debris have sunk two public reproductions of the paper. Every check is linear in the length of the response.
"""

from __future__ import annotations

import re
from collections import Counter

from w2sr_jax.core.boxes import first_box, last_box, last_box_span
from w2sr_jax.core.trace_config import HYGIENE_FLAGS

TAIL_CHARS = 4000
GRAM_WORDS, GRAM_REPEATS = 12, 8
LINE_CHARS, LINE_REPEATS = 10, 5
MAX_CLOSING_LETTERS = 40

# Greek, Latin with accents and mathematical alphabets are ordinary in mathematics; these scripts are not.
_FOREIGN = re.compile(
    "[\u0400-\u058f\u0590-\u05ff\u0600-\u06ff\u0750-\u077f\u08a0-\u0dff\u0e00-\u0fff\u1000-\u11ff\u1780-\u17ff"
    "\u3040-\u30ff\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0002fa1f]"
)
_LATIN = re.compile(r"[A-Za-z]")
_URL_OR_HTML = re.compile(
    r"\bhttps?://|\bwww\.[a-z0-9]|<!--|<!doctype|&(?:nbsp|lt|gt|amp|quot);"
    # A tag with nothing or attributes in it; tags of one letter only when closed, as `a<b>c` is a comparison.
    r"|</?(?:div|span|br|hr|img|table|tr|td|th|tbody|ul|ol|li|h[1-6]|em|strong|code|pre|script|style|html|body|head|"
    r"font|center|sub|sup|input|form|button|iframe|link|meta)(?:\s{1,20}[a-z-]{1,40}\s{0,20}=[^<>]{0,300})?\s{0,20}/?>"
    r"|<[apbiu]\s{1,20}(?:href|class|style|id|target|name)\s{0,20}=|</[apbius]>",
    re.IGNORECASE,
)
# What may close the formula that holds the box: brackets, dollars, punctuation, `\end{align}`, `\text{ cm}`.
_CLOSER = re.compile(r"\\end\s*\{[a-z*]{1,20}\}|\\(?:text|mathrm|mbox)\s*\{[^{}]{0,60}\}|\\[\])]|[\s$}.,;*)\]]+")


def flags(response: str, finish_reason: str) -> list[str]:
    """The raised HYGIENE_FLAGS of a response, in their order.

    length_stop       generation was cut at max_tokens
    loop              it ends in a repetition, or repeats a line or a phrase of 12 words over and over
    missing_box       no box, or the last one is never closed
    text_after_answer it goes on after the last box: on another line, or by more than a closing phrase
    script_mixing     letters of scripts that are neither Latin nor Greek in a mostly Latin text
    url_or_html       a web address, an HTML tag or entity
    """
    raised = {
        "length_stop": finish_reason == "length",
        "loop": has_loop(response),
        "missing_box": last_box(response) is None,
        "text_after_answer": _goes_on(response),
        "script_mixing": _mixes_scripts(response),
        "url_or_html": _URL_OR_HTML.search(response) is not None,
    }
    return [flag for flag in HYGIENE_FLAGS if raised[flag]]


def boxes_disagree(response: str) -> bool:
    """Whether the first and the last box hold different texts: scoring by either would give different results."""
    first, last = first_box(response), last_box(response)
    return first is not None and last is not None and first != last


def has_loop(response: str) -> bool:
    """Whether the response is caught in a repetition."""
    repeats, covered = _tail_period(response[-TAIL_CHARS:].rstrip())
    if (repeats >= 6 and covered >= 48) or (repeats >= 3 and covered >= 240):
        return True
    run, previous = 1, ""
    for line in response.split("\n"):
        line = line.strip()
        run = run + 1 if line == previous else 1
        previous = line
        if run >= LINE_REPEATS and len(line) >= LINE_CHARS:
            return True
    words = response.split()
    grams = Counter(hash(tuple(words[i : i + GRAM_WORDS])) for i in range(len(words) - GRAM_WORDS + 1))
    return max(grams.values(), default=0) >= GRAM_REPEATS


def _tail_period(tail: str) -> tuple[float, int]:
    """(repeats, characters covered) of the most repeated unit that the text ends in.

    The prefix function of the reversed text (Knuth, Morris, Pratt) gives every prefix's shortest period in linear time.
    """
    text = tail[::-1]
    fail, best = [0] * len(text), (1.0, 0)
    for i in range(1, len(text)):
        k = fail[i - 1]
        while k and text[i] != text[k]:
            k = fail[k - 1]
        fail[i] = k + (text[i] == text[k])
        period = i + 1 - fail[i]
        repeats = (i + 1) / period
        if repeats >= 3 and (min(repeats, 6), i + 1) > (min(best[0], 6), best[1]):
            best = (repeats, i + 1)
    return best


def _goes_on(response: str) -> bool:
    span = last_box_span(response)
    if span is None:
        return False
    position = span[1] + 1
    rest = response[position:]
    closed = 0
    while match := _CLOSER.match(rest, closed):
        closed = match.end()
    rest = rest[closed:].rstrip()
    newline_before = "\n" in response[position : position + closed]
    letters = sum(char.isalnum() for char in rest)
    return letters > 0 and (newline_before or "\n" in rest or letters > MAX_CLOSING_LETTERS)


def _mixes_scripts(response: str) -> bool:
    foreign = sum(1 for _ in _FOREIGN.finditer(response))
    return 0 < foreign <= sum(1 for _ in _LATIN.finditer(response))
