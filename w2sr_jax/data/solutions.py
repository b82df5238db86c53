r"""Worked solutions that people wrote, as traces: from the files of benchmarks and data sets that publish them."""

from __future__ import annotations

import re
from typing import Any

from w2sr_jax.core.boxes import last_box
from w2sr_jax.core.records import RecordError, Trace
from w2sr_jax.data.tasks import problems_of, rows_of

HUMAN = "human"


def load_solutions(source: str) -> list[Trace]:
    r"""One trace a problem of a source whose rows have a `solution`, or a worked `answer` that ends in `#### RESULT`.

    The source is a file, `bench:NAME` or `hf:DATASET_ID[:SPLIT]`. Of a list of parts (OlympiadBench) all are joined. A
    solution without a `\boxed{}` is closed with the published answer in one. GSM8K's annotations (`<<48/2=24>>`) are
    left out.

    Raises:
        RecordError: the source has no solutions.
        UsageError: it generates its problems.
    """
    traces = []
    rows = list(rows_of(source))
    for problem, (_, row) in zip(problems_of(source, rows), rows, strict=True):
        text = _text(row)
        if not text.strip():
            raise RecordError(f"{source}: problem {problem.id!r}: solution: missing; these problems have no solutions")
        if last_box(text) is None:
            text += f"{'' if text.endswith(chr(10)) else chr(10)}\\boxed{{{problem.answer}}}"
        traces.append(
            Trace(
                problem_id=problem.id,
                sample=0,
                response=text,
                response_tokens=len(text.split()),  # words: no model's tokenizer is at hand
                finish_reason="stop",
                teacher=HUMAN,
            )
        )
    return traces


def _text(row: dict[str, Any]) -> str:
    """A row's worked solution; "" where it has none."""
    found = row.get("solution")
    if isinstance(found, list):
        found = "\n\n".join(part for part in found if isinstance(part, str))
    if isinstance(found, str):
        return found
    worked, marker, _ = re.sub(r"<<[^<>]*>>", "", str(row.get("answer"))).rpartition("####")
    return worked.rstrip() + "\n" if marker else ""
