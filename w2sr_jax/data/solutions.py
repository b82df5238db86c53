r"""Worked solutions that people wrote, as traces: from the files of benchmarks and data sets that publish them."""

from __future__ import annotations

import re
from pathlib import Path

from w2sr_jax.core.boxes import last_box
from w2sr_jax.core.files import iter_rows
from w2sr_jax.core.records import RecordError, Trace
from w2sr_jax.data.tasks import load_problems

HUMAN = "human"


def load_solutions(path: str) -> list[Trace]:
    r"""One trace a problem of a file whose rows have a `solution`, or a worked `answer` that ends in `#### RESULT`.

    A solution without a `\boxed{}` is closed with the published answer in one. GSM8K's annotations (`<<48/2=24>>`) are
    left out.

    Raises:
        RecordError: the file has no solutions.
    """
    problems, traces = load_problems(path), []
    rows = [row for _, row in iter_rows(Path(path))]
    for problem, row in zip(problems, rows, strict=True):
        text = row.get("solution")
        if not isinstance(text, str) and "####" in str(row.get("answer")):
            text = re.sub(r"<<[^<>]*>>", "", str(row["answer"])).rpartition("####")[0].rstrip() + "\n"
        if not isinstance(text, str) or not text.strip():
            raise RecordError(f"{path}: problem {problem.id!r}: solution: missing; these problems have no solutions")
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
