"""JSON and JSONL files: read with errors that say where, written so that a kill at any moment loses nothing whole.

`write_jsonl` and `write_json` replace a file atomically (write, fsync, rename); `JsonlAppender` only ever appends, and
drops a half-written last line when it opens a file again. Of several processes only the first one writes: what they
all hold is written once, and the others' calls do nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TextIO

from w2sr_jax.core import processes
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.records import Record, RecordError


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
    write_text(path, _json(value, indent=1) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads one JSON file.

    Raises:
        RecordError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not JSON: {error}") from None


def made_by_writer(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON value that process 0 makes and leaves at `path`, on every process; the others wait as long as it takes.

    All call it. `make` may write other files: they are whole before anyone goes on.
    """
    if processes.is_writer():
        write_json(path, make())
    processes.barrier(path.name, processes.FOREVER_S)
    return read_json(path)


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
    except (OSError, UnicodeEncodeError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        reason = error.strerror if isinstance(error, OSError) else error
        raise W2SRError(f"{path}: cannot be written: {reason}") from error


def _line(record: Record) -> str:
    return _json(record.to_json()) + "\n"


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can only hold as an escape
        text = json.dumps(value, indent=indent)
    return text


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
