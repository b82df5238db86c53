r"""Which part of a response is its answer: the only rule, shared by filter, reward and evaluation.

1. The last `\boxed{...}` (or `\fbox{...}`, or `\boxed 5`) is the answer, whatever stands after it.
2. If that last box is never closed there is no answer: an earlier box does not count.
3. Only a response without any box may name its answer in words ("The answer is 5", "#### 5"), since models of the
   abel template were never asked for a box. The last such phrase counts. A bare last number never does.
"""

from __future__ import annotations

import itertools
import re

MAX_OPEN_BOXES = 16  # each search for a closing brace may run to the end of the response
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BARE = re.compile(r"\s*([^\s${}]+)")  # `\boxed 5`, `\boxed5`
_PHRASE = re.compile(
    r"(?:####|\banswer(?:\s{1,3}is|(?=\s{0,3}:)))\s{0,3}:?\s{0,3}(?=(\$\$[^$]{1,500}\$\$|[^\n]{0,500}))", re.IGNORECASE
)  # up to the end of the line, or a formula on lines of its own
_SENTENCE_END = re.compile(r"\.(?=\s|$)")
_ADVERB = re.compile(r"(?:therefore|thus|then|hence|simply|just)\b[,:]?\s{0,3}", re.IGNORECASE)
_CLOSED_MATH = re.compile(r"^(\${1,2}|\\\()(.+?)(?:\${1,2}|\\\))", re.DOTALL)


def extract(response: str) -> str | None:
    """The text of the answer, or None if the response gives none."""
    if _BOX.search(response):
        return last_box(response)
    phrases = _PHRASE.findall(response)
    return _trim_phrase(phrases[-1]) if phrases else None


def last_box(response: str) -> str | None:
    r"""What the last `\boxed` holds; None without a box, or if the last one is never closed."""
    span = last_box_span(response)
    return None if span is None else response[span[0] : span[1]].strip()


def first_box(response: str) -> str | None:
    """What the first box holds; it differs from the last one in responses that do not stop at their answer."""
    match = _BOX.search(response)
    span = _contents(response, match.end()) if match else None
    return None if span is None else response[span[0] : span[1]].strip()


def stop_at_box(response: str) -> str:
    r"""The response up to the end of its first complete `\boxed{...}`, as if generation had stopped there; else all."""
    for match in itertools.islice(_BOX.finditer(response), MAX_OPEN_BOXES):
        if span := _contents(response, match.end()):
            return response[: span[1] + response.startswith("}", span[1])]
    return response


def last_box_span(response: str) -> tuple[int, int] | None:
    """(start, end) of the last box's contents in the response; None as for `last_box`."""
    start = max(response.rfind(r"\boxed"), response.rfind(r"\fbox"))
    match = _BOX.match(response, start) if start >= 0 else None
    if start >= 0 and match is None:  # the last hit was another macro, like \boxedthing
        for match in _BOX.finditer(response):  # noqa: B007 (the last one is wanted)
            pass
    return _contents(response, match.end()) if match else None


def _contents(text: str, position: int) -> tuple[int, int] | None:
    """The span of the group that opens at `position`, braces balanced; escaped braces are ordinary characters."""
    opening = re.compile(r"\s*\{").match(text, position)
    if opening is None:
        bare = _BARE.match(text, position)
        return None if bare is None else (bare.start(1), bare.start(1) + len(bare.group(1).rstrip(".,;:")))
    depth = 1
    for token in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening.end()):
        if token.group() in "{}":
            depth += 1 if token.group() == "{" else -1
            if depth == 0:
                return opening.end(), token.start()
    return None


def _trim_phrase(text: str) -> str | None:
    """The answer at the head of 'is $5$ dollars, because ...': inside its dollars, or up to the sentence's end."""
    text = text.strip().lstrip("*_ ").strip()
    if adverb := _ADVERB.match(text):  # "the answer is therefore $5$"
        text = text[adverb.end() :]
    if math := _CLOSED_MATH.match(text):
        return math.group(2).strip()
    if end := _SENTENCE_END.search(text):
        text = text[: end.start()]
    return text.strip().strip("*_").strip() or None
