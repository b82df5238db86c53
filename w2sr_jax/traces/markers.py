"""Words that show a response looking back at itself: what tells a reasoning trace from a plain solution.

The list is short on purpose and counts words, not thoughts: a marker says "here it may be reflecting". Letters' case
does not matter. Add a marker here and it is a row of the trace lab.
"""

from __future__ import annotations

import re

MARKERS = {
    "wait": r"wait",
    "hmm": r"hm+",
    "check": r"(?:let me|let us|let's|i(?:'ll| will| should)|to) (?:double[- ]?check|re-?check|check|verify)|"
    r"double[- ]checking",
    "again": r"let me (?:re-?think|reconsider|re-?read|redo|try again|start over|go back)|start(?:ing)? over",
    "alternatively": r"alternatively|another (?:way|approach|method)|a different approach",
    "actually": r"actually",
    "mistake": r"(?:i|we) made (?:a mistake|an error)|(?:that|this)(?:'s| is)(?: not|n't) (?:right|correct)|"
    r"(?:that|this) is (?:wrong|incorrect)|oops",
    "second_thought": r"but (?:hold on|wait)|on second thought|hold on",
}
_ALL = re.compile(r"\b(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in MARKERS.items()) + r")\b", re.I)


def count(text: str) -> dict[str, int]:
    """How often each marker stands in a text; those that do not are left out."""
    found: dict[str, int] = {}
    for match in _ALL.finditer(text.replace("’", "'")):
        name = match.lastgroup or ""
        found[name] = found.get(name, 0) + 1
    return found
