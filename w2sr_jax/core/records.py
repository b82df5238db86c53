"""Problem, Trace, Prediction...: the only place that knows the JSONL schemas. files.py reads and writes them."""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Hashable
from typing import Any, ClassVar, Literal, Self

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.field_types import fits, type_name

FinishReason = Literal["stop", "length", "failed"]  # failed: the engine died of the request; the response is empty


class RecordError(W2SRError):
    """A file does not hold the records it should: `FILE: line N: field: reason`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a JSONL file. Subclasses declare the fields; JSON types are checked on read."""

    schema: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        return {"schema": self.schema} | {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, row: Any, where: str = "record") -> Self:
        """Builds the record from a decoded JSON value.

        Raises:
            RecordError: naming `where`, the field and the reason.
        """
        if not isinstance(row, dict):
            raise RecordError(f"{where}: expected an object, got {type(row).__name__}")
        found = row.get("schema", cls.schema)
        if found != cls.schema:
            raise RecordError(f"{where}: schema: expected {cls.schema!r}, got {found!r}")
        kinds, values = _kinds(typing.cast(Hashable, cls)), {}
        for field in dataclasses.fields(cls):
            if field.name in row:
                if not fits(row[field.name], kinds[field.name]):
                    got = json.dumps(row[field.name], ensure_ascii=False)[:60]
                    raise RecordError(f"{where}: {field.name}: expected {type_name(kinds[field.name])}, got {got}")
                values[field.name] = row[field.name]
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise RecordError(f"{where}: {field.name}: missing")
        if unknown := set(row) - {f.name for f in dataclasses.fields(cls)} - {"schema"}:
            raise RecordError(f"{where}: {sorted(unknown)[0]}: unknown field")
        return cls(**values)


@functools.cache
def _kinds(record: Any) -> dict[str, Any]:
    # Resolved once per class: doing it for every record took four fifths of the time that reading a file takes.
    return typing.get_type_hints(record)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Record):
    """A question with a checkable answer (`problems.jsonl`)."""

    schema: ClassVar[str] = "problem/1"
    id: str
    problem: str
    answer: str
    source: str = ""
    level: str | None = None
    verifier: str = "math"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Record):
    """One response of a teacher to one problem (`traces.jsonl`)."""

    schema: ClassVar[str] = "trace/1"
    problem_id: str
    sample: int  # 0 .. n-1
    response: str  # without the stop token
    response_tokens: int  # with the stop token
    finish_reason: FinishReason
    teacher: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GradedTrace(Trace):
    """A trace after grading and hygiene checks (`all.jsonl`, `correct.jsonl`, `incorrect.jsonl`)."""

    schema: ClassVar[str] = "graded_trace/1"
    extracted: str | None
    correct: bool
    grader: str
    hygiene: list[str]  # the names of the flags raised, see grading/hygiene.py


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EditedTrace(Trace):
    """A trace that `transform` changed on purpose, or left as it was (`edit` is empty), with what undoes the change.

    `now` stands in `response` from character `at` on; `was` stood there before. response_tokens is the original's.
    """

    schema: ClassVar[str] = "edited_trace/1"
    edit: str  # what was done, in words
    at: int
    was: str
    now: str
    was_finish_reason: FinishReason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TraceScore(Record):
    """What a student thinks of a trace (`scores.jsonl`)."""

    schema: ClassVar[str] = "trace_score/1"
    problem_id: str
    sample: int
    teacher: str
    surprisal: float  # mean negative log-likelihood of the response's tokens, in nats
    tokens: int  # of the response and its closing token, in the student's tokenizer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(Record):
    """One graded answer of an evaluated model (`predictions.jsonl`)."""

    schema: ClassVar[str] = "prediction/1"
    benchmark: str
    problem_id: str
    sample: int
    response: str
    response_tokens: int
    finish_reason: FinishReason
    extracted: str | None
    correct: bool
    hygiene: list[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement(Record):
    """An answer of which the two graders say different things (`disagreements.jsonl`)."""

    schema: ClassVar[str] = "disagreement/1"
    problem_id: str
    sample: int
    extracted: str
    answer: str
    main: bool  # the grader that counts
    second: bool
    error: str | None  # what kept the main grader from deciding


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overlap(Record):
    """A trace that shares an n-gram of words with a benchmark problem (`contaminated.jsonl`)."""

    schema: ClassVar[str] = "overlap/1"
    problem_id: str
    sample: int
    part: Literal["problem", "response"]  # where in the trace
    benchmark: str
    benchmark_problem: str  # its id
    words: str  # the first n-gram that they share
