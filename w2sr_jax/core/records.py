"""Problem, Trace, Prediction...: the only place that knows the JSONL schemas, and how such files are written.

Two writers, chosen so that a kill at any moment loses at most the work in flight: `write_jsonl` and
`write_json` replace a file atomically (write, fsync, rename); `JsonlAppender` only ever appends, and drops
a half-written last line when it opens a file again. Of several processes only the first one writes: what they all hold
is written once, and the others' calls do nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import types
import typing
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TextIO

from w2sr_jax.core import processes
from w2sr_jax.core.errors import W2SRError

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
                if not _fits(row[field.name], kinds[field.name]):
                    got = json.dumps(row[field.name], ensure_ascii=False)[:60]
                    raise RecordError(f"{where}: {field.name}: expected {_name(kinds[field.name])}, got {got}")
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


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a decoded JSON value has the annotated type (bool is not an int here)."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value in args
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, a) for a in args)
    if origin is list:
        return isinstance(value, list) and all(_fits(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if kind is Any:
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


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


def read_jsonl[R: Record](path: str | Path, kind: type[R]) -> list[R]:
    """Reads and checks every line of `path` as a `kind`.

    Raises:
        RecordError: `FILE: line N: field: reason`, also for a missing file or a last line cut short.
    """
    return list(iter_jsonl(path, kind))


def iter_jsonl[R: Record](path: str | Path, kind: type[R]) -> Iterator[R]:
    """As `read_jsonl`, one record at a time."""
    for number, row in iter_rows(path):
        yield kind.from_json(row, f"{path}: line {number}")


def iter_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields (line number from 1, decoded JSON value) of a JSONL file; blank lines are skipped."""
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    cut = "" if line.endswith("\n") else " (the file ends here: was it cut short?)"
                    raise RecordError(f"{path}: line {number}: not JSON: {error}{cut}") from None
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None


def write_jsonl(path: str | Path, records: Iterable[Record]) -> None:
    """Writes all records, atomically."""
    write_text(path, "".join(_line(r) for r in records))


def write_json(path: str | Path, value: Any) -> None:
    """Writes one JSON value, indented, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads one JSON file.

    Raises:
        RecordError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not JSON: {error}") from None


def write_text(path: str | Path, text: str) -> None:
    """Replaces a text file atomically: write beside it, fsync, rename."""
    if not processes.is_writer():
        return
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise W2SRError(f"{path}: cannot be written: {error.strerror}") from error


def _line(record: Record) -> str:
    line = json.dumps(record.to_json(), ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can only hold as an escape
        line = json.dumps(record.to_json())
    return line + "\n"


class JsonlAppender[R: Record]:
    """An append-only JSONL file that survives a kill: `existing` holds what earlier runs wrote whole.

    Each `append` reaches the operating system at once, so SIGKILL of this process loses nothing appended.
    """

    def __init__(self, path: str | Path, kind: type[R]):
        self.path = Path(path)
        self._file: TextIO | None = None  # only the first process has one
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and processes.is_writer():
                _drop_partial_last_line(self.path)
            self.existing: list[R] = read_jsonl(self.path, kind) if self.path.exists() else []
            if processes.is_writer():
                self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise W2SRError(f"{self.path}: cannot be written: {error.strerror}") from error

    def append(self, *records: R) -> None:
        if self._file is None:
            return
        try:
            self._file.write("".join(_line(r) for r in records))
            self._file.flush()
        except OSError as error:
            raise W2SRError(f"{self.path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is None:
            return
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            # After a failed append the buffer still holds what could not be written: that error is the one to show.
            if exc[0] is None:
                raise W2SRError(f"{self.path}: cannot be written: {error.strerror}") from error


def _drop_partial_last_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None


def sha256_records(records: Iterable[Record]) -> str:
    """Hex sha256 of the records as `write_jsonl` would write them."""
    return hashlib.sha256("".join(_line(r) for r in records).encode()).hexdigest()
