r"""Problems from files: our own problems.jsonl, and the benchmark files with the fields that their sources publish.

A format is recognised by the fields of the first row; the file's name does not matter, except that a file named
"...train..." gets ids of its own (gsm8k_train/12), so that they cannot be taken for those of the test split.
Answers become plain LaTeX strings that a response's `\boxed{}` can be compared with.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from w2sr_jax.core import gym
from w2sr_jax.core.boxes import has_box, last_box
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import iter_rows
from w2sr_jax.core.records import Problem, RecordError
from w2sr_jax.data import benchmarks

Row = dict[str, Any]
HUB_PREFIX = "hf:"
LETTERS = "ABCDEFGH"  # of options; the grader reads these


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one source writes its problems. Without an `identifier` field a problem is known by its place in the file."""

    name: str
    required: frozenset[str]
    optional: frozenset[str]
    text: str
    answer: Callable[[Row], str]
    identifier: str = ""
    verifier: str = "math"
    options: Callable[[Row], list[str]] | None = None  # of a multiple-choice question, put after its text


def load_problems(source: str, limit: int = 0) -> list[Problem]:
    """Reads problems, with ids that are unique and stay the same from read to read.

    Args:
        source: a JSONL file, `bench:NAME` (data/benchmarks.py), `hf:DATASET_ID[:SPLIT]`, or `gym:TASK[:COUNT[:SEED]]`.
        limit: keeps the first so many; 0 keeps all.

    Raises:
        RecordError: `FILE: line N: field: reason`; the whole file is checked, whatever the limit.
        W2SRError: the hub cannot be reached.
    """
    if source.startswith(gym.PREFIX):
        from w2sr_jax.data.gym_problems import generate

        problems = generate(source)
    else:
        problems = problems_of(source, rows_of(source))
    return problems[:limit] if limit else problems


def rows_of(source: str) -> Iterable[tuple[int, Any]]:
    """(number from 1, row as published) of a file, `bench:NAME` or `hf:...`.

    Raises:
        UsageError: the source is misspelt, or generates its problems and has no rows.
    """
    if source.startswith(gym.PREFIX):
        raise UsageError(f"{source}: is generated: there are no rows behind its problems")
    if source.startswith(HUB_PREFIX):
        from w2sr_jax.data.hub import fetch_rows

        return fetch_rows(source)
    return iter_rows(benchmarks.locate(source) if source.startswith(benchmarks.PREFIX) else source)


def problems_of(source: str, rows: Iterable[tuple[int, Any]]) -> list[Problem]:
    """The problems in the rows of a source."""
    if source.startswith(HUB_PREFIX):
        return _convert(rows, source, lambda _: source.removeprefix(HUB_PREFIX), strict=False)
    where = str(benchmarks.locate(source)) if source.startswith(benchmarks.PREFIX) else source
    suffix = "_train" if "train" in Path(where).stem else ""
    return _convert(rows, where, lambda name: name + suffix, strict=True)


def _convert(rows: Iterable[tuple[int, Any]], where: str, naming: Callable[[str], str], strict: bool) -> list[Problem]:
    """`naming` turns a format's name into the source; not `strict` ignores columns that the format does not know."""
    kind: Format | None = None
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    for number, row in rows:
        line = f"{where}: line {number}"
        if not isinstance(row, dict):
            raise RecordError(f"{line}: expected an object, got {type(row).__name__}")
        if not problems:
            kind = _recognise(row, line)
        problem = _problem(row, kind, number, line, naming, strict) if kind else Problem.from_json(row, line)
        for field, value in (("id", problem.id), ("problem", problem.problem), ("answer", problem.answer)):
            if not value.strip():
                raise RecordError(f"{line}: {field}: empty")
        if problem.id in lines:
            raise RecordError(f"{line}: id: {problem.id!r} is also on line {lines[problem.id]}")
        lines[problem.id] = number
        problems.append(problem)
    if not problems:
        raise RecordError(f"{where}: holds no problems")
    return problems


def _recognise(row: Row, line: str) -> Format | None:
    """The first row's format; None is our own."""
    ours = {f.name for f in dataclasses.fields(Problem)}
    if "schema" in row or (isinstance(row.get("id"), str) and set(row) <= ours):
        return None
    for kind in FORMATS:
        if kind.required <= set(row):
            return kind
    known = "; ".join(f"{kind.name} ({', '.join(sorted(kind.required))})" for kind in FORMATS)
    raise RecordError(
        f"{line}: {', '.join(sorted(row)) or 'no fields'}: not the fields of a known format: "
        f"problem/1 (answer, id, problem); {known}"
    )


def _problem(row: Row, kind: Format, number: int, line: str, naming: Callable[[str], str], strict: bool) -> Problem:
    for field in sorted(kind.required):
        if row.get(field) is None:
            raise RecordError(f"{line}: {field}: missing")
    if strict and (unknown := set(row) - kind.required - kind.optional):
        raise RecordError(f"{line}: {min(unknown)}: unknown field of {kind.name}")
    text = row[kind.text]
    if not isinstance(text, str):
        raise RecordError(f"{line}: {kind.text}: expected str, got {json.dumps(text)[:60]}")
    try:
        answer = kind.answer(row)
    except ValueError as error:
        raise RecordError(f"{line}: {error}") from None
    if kind.options is not None:
        try:
            lettered = zip(LETTERS, kind.options(row))
        except ValueError as error:
            raise RecordError(f"{line}: {error}") from None
        text = "\n".join([text, *(f"({letter}) {option}" for letter, option in lettered)])
    context = row.get("context")
    level = row.get("level")
    identifier = row[kind.identifier] if row.get(kind.identifier) is not None else number - 1
    source = naming(_source(row, kind.name))
    return Problem(
        id=f"{source}/{identifier}",
        problem=f"{context}\n{text}" if context else text,
        answer=answer,
        source=source,
        level=None if level is None else str(level).removeprefix("Level "),
        verifier=kind.verifier,
    )


def _source(row: Row, name: str) -> str:
    """aime24 and amc23 have the same fields; the year and the contest stand in the address of the problem."""
    contest = re.search(r"20(\d\d)_(AIME|AMC)", str(row.get("url")))
    return f"{contest[2].lower()}{contest[1]}" if name == "contest" and contest else name


def _plain(row: Row, field: str = "answer") -> str:
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{field}: expected a string or a number, got {json.dumps(value)[:60]}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # AMC23 publishes 27.0 for the integer 27
    return str(value).strip()


def _after_hashes(row: Row) -> str:
    _, marker, result = _plain(row).rpartition("####")
    if not marker:
        raise ValueError("answer: has no '#### RESULT' at its end")
    return result.strip().replace(",", "")


def _boxed_in_solution(row: Row) -> str:
    solution = _plain(row, "solution")
    answer = last_box(solution)
    if answer is None:
        why = r"its last \boxed{ANSWER} is never closed" if has_box(solution) else r"has no \boxed{ANSWER}"
        raise ValueError(f"solution: {why}")
    return re.sub(r"(?<!\\)\$\s*\$", " ", answer)  # a formula that closes and opens again inside its box


def _joined(row: Row) -> str:
    """OlympiadBench's list of answers as one: "a, b". The unit stands in the question and is left out."""
    parts = row["final_answer"]
    if not isinstance(parts, list) or not parts or not all(isinstance(p, str) for p in parts):
        raise ValueError(f"final_answer: expected a list of strings, got {json.dumps(parts)[:60]}")
    return ", ".join(_undelimited(p) for p in parts)


def _undelimited(answer: str) -> str:
    """Drops the dollars around LaTeX, unless words stand between them: they are all that tells text from formula."""
    answer = answer.strip()
    if re.search(r"[A-Za-z]{2}", re.sub(r"\$[^$]*\$", " ", answer)) and answer.count("$") > 1:
        return answer
    return re.sub(r"(?<!\\)\$", "", answer).strip().rstrip(".").strip()


def _options(row: Row) -> list[str]:
    """The texts of `choices`: a list, or ARC's {"text": [...], "label": [...]}."""
    choices = row["choices"].get("text") if isinstance(row["choices"], dict) else row["choices"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"choices: expected 2 to {len(LETTERS)} of them, got {json.dumps(row['choices'])[:60]}")
    return [str(choice) for choice in choices]


def _chosen(row: Row) -> str:
    """The letter of the right option, which is given as its place, its letter or ARC's label."""
    options, answer = _options(row), row.get("answer", row.get("answerKey"))
    labels = row["choices"].get("label") if isinstance(row["choices"], dict) else None
    if labels and answer in labels:
        return LETTERS[labels.index(answer)]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return LETTERS[answer]
    if isinstance(answer, str) and len(answer) == 1 and answer in LETTERS[: len(options)]:
        return answer
    raise ValueError(f"answer: names none of {len(options)} choices: {json.dumps(answer)[:60]}")


FORMATS = (
    Format(
        name="multiple_choice",  # as MMLU and ARC publish theirs
        required=frozenset({"question", "choices"}),
        optional=frozenset({"answer", "answerKey", "id", "subject"}),
        text="question",
        answer=_chosen,
        identifier="id",
        verifier="choice",
        options=_options,
    ),
    Format(
        name="olympiadbench",
        required=frozenset({"id", "question", "final_answer"}),
        optional=frozenset({"subfield", "context", "solution", "is_multiple_answer", "unit", "answer_type", "error"}),
        text="question",
        answer=_joined,
        identifier="id",
    ),
    Format(
        name="math500",
        required=frozenset({"problem", "answer", "unique_id"}),
        optional=frozenset({"solution", "subject", "level"}),
        text="problem",
        answer=_plain,
        identifier="unique_id",
    ),
    Format(
        name="contest",  # AIME and AMC: see _source
        required=frozenset({"id", "problem", "answer", "url"}),
        optional=frozenset({"question", "solution"}),
        text="problem",
        answer=_plain,
        identifier="id",
    ),
    Format(
        name="minerva_math",
        required=frozenset({"idx", "problem", "solution", "type"}),
        optional=frozenset(),
        text="problem",
        answer=_boxed_in_solution,
        identifier="idx",
    ),
    Format(
        name="math",  # the training and test splits of MATH
        required=frozenset({"problem", "solution", "level", "type"}),
        optional=frozenset(),
        text="problem",
        answer=_boxed_in_solution,
    ),
    Format(
        name="simplerl",  # the training problems of SimpleRL-Zoo
        required=frozenset({"question", "gt_answer"}),
        optional=frozenset({"answer", "subject", "level"}),
        text="question",
        answer=lambda row: _plain(row, "gt_answer"),
    ),
    Format(
        name="gsm8k",
        required=frozenset({"question", "answer"}),
        optional=frozenset({"idx"}),
        text="question",
        answer=_after_hashes,
        identifier="idx",
    ),
    Format(
        name="problem_answer",
        required=frozenset({"problem", "answer"}),
        optional=frozenset({"id", "solution", "subject", "level"}),
        text="problem",
        answer=_plain,
        identifier="id",
    ),
)
