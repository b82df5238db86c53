r"""Which part of a response is its answer: the only rule, shared by filter, reward and evaluation.

1. The last `\boxed{...}` (or `\fbox{...}`, or `\boxed 5`) is the answer, whatever stands after it.
2. If that last box is never closed there is no answer: an earlier box does not count.
3. Only a response without any box may name its answer in words ("The answer is 5", "#### 5"), since models of the
   abel template were never asked for a box. The last such phrase counts. A bare last number never does.
"""

from __future__ import annotations

import re

from w2sr_jax.core.boxes import has_box, last_box

_PHRASE = re.compile(
    r"(?:####|\banswer(?:\s{1,3}is|(?=\s{0,3}:)))\s{0,3}:?\s{0,3}(?=(\$\$[^$]{1,500}\$\$|[^\n]{0,500}))", re.IGNORECASE
)  # up to the end of the line, or a formula on lines of its own
_SENTENCE_END = re.compile(r"\.(?=\s|$)")
_ADVERB = re.compile(r"(?:therefore|thus|then|hence|simply|just)\b[,:]?\s{0,3}", re.IGNORECASE)
_REASON = re.compile(r",?\s+(?:because|since|which)\b.*", re.IGNORECASE | re.DOTALL)
# A dollar before a digit closes no formula: "$18 because she had $20"
_CLOSED_MATH = re.compile(r"^(\${1,2}|\\\()(.+?)(?:\${1,2}(?!\d)|\\\))", re.DOTALL)


def extract(response: str) -> str | None:
    """The text of the answer, or None if the response gives none."""
    if has_box(response):
        return last_box(response)
    phrases = _PHRASE.findall(response)
    return _trim_phrase(phrases[-1]) if phrases else None


def _trim_phrase(text: str) -> str | None:
    """The answer at the head of 'is $5$ dollars, because ...': inside its dollars, or up to the sentence's end."""
    text = text.strip().lstrip("*_ ").strip()
    if adverb := _ADVERB.match(text):  # "the answer is therefore $5$"
        text = text[adverb.end() :]
    if math := _CLOSED_MATH.match(text):
        return math.group(2).strip()
    if end := _SENTENCE_END.search(text):
        text = text[: end.start()]
    return _REASON.sub("", text.strip()).strip("*_ ").strip() or None
