r"""Where the boxes of a text are: `\boxed{...}`, `\fbox{...}` and `\boxed 5`, for responses and published solutions."""

from __future__ import annotations

import itertools
import re

MAX_OPEN_BOXES = 16  # each search for a closing brace may run to the end of the text
BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BARE = re.compile(r"\s*([^\s${}]+)")  # `\boxed 5`, `\boxed5`


def has_box(text: str) -> bool:
    """Whether any box is opened."""
    return BOX.search(text) is not None


def last_box(text: str) -> str | None:
    """What the last box holds; None without a box, or if that one is never closed: an earlier one does not count."""
    span = last_box_span(text)
    return None if span is None else text[span[0] : span[1]].strip()


def first_box(text: str) -> str | None:
    """What the first box holds; it differs from the last one in responses that do not stop at their answer."""
    match = BOX.search(text)
    span = _contents(text, match.end()) if match else None
    return None if span is None else text[span[0] : span[1]].strip()


def stop_at_box(text: str) -> str:
    """The text up to the end of its first complete box, as if generation had stopped there; else all."""
    for match in itertools.islice(BOX.finditer(text), MAX_OPEN_BOXES):
        if span := _contents(text, match.end()):
            return text[: span[1] + text.startswith("}", span[1])]
    return text


def last_box_span(text: str) -> tuple[int, int] | None:
    """(start, end) of the last box's contents in the text; None as for `last_box`."""
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    match = BOX.match(text, start) if start >= 0 else None
    if start >= 0 and match is None:  # the last hit was another macro, like \boxedthing
        for match in BOX.finditer(text):  # noqa: B007 (the last one is wanted)
            pass
    return _contents(text, match.end()) if match else None


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
