"""metrics.jsonl, TensorBoard and progress: what a person watches while a stage runs."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Self

from absl import logging

from w2sr_jax.core import processes
from w2sr_jax.core.files import write_text
from w2sr_jax.core.records import RecordError


class MetricWriter:
    """Appends `{"step": s, "time": t, name: value}` lines to metrics.jsonl and the same scalars to TensorBoard.

    Resuming at a step drops the lines from that step on, so that a curve never holds a step twice. Of several processes
    only the first one writes.

    Attributes:
        earlier: the rows that were there and stay; empty on a process that does not write.
    """

    def __init__(self, workdir: str | Path, resume_step: int = 0):
        self.path, self._writes = Path(workdir) / "metrics.jsonl", processes.is_writer()
        self.earlier: list[dict[str, float]] = []
        if not self._writes:
            return
        from tensorboardX import SummaryWriter

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.earlier = [row for row in read_metrics(workdir) if row["step"] < resume_step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.earlier))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=resume_step or None)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one row; `step` counts from 0."""
        if not self._writes:
            return
        row = {name: float(value) for name, value in values.items()}
        # NaN is no JSON; null keeps the file readable by everything.
        safe = {name: value if math.isfinite(value) else None for name, value in row.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3)} | safe) + "\n")
        self._file.flush()
        for name, value in row.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writes:
            self._file.close()
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_metrics(workdir: str | Path) -> list[dict[str, float]]:
    """The rows of workdir/metrics.jsonl; a last line cut short by a kill, or still being written, is left out."""
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    try:
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.strip()]
    except ValueError as error:
        raise RecordError(f"{path}: not JSON: {error}") from None


class Progress:
    """Rate and time left of a long loop: one live line on a terminal, a plain line every `every_s` seconds in a log."""

    def __init__(self, total: int, what: str, unit: str = "step", every_s: float = 15.0):
        self.total, self.what, self.unit, self.every_s = total, what, unit, every_s
        self._live = sys.stderr.isatty() and processes.is_writer()
        self._start = self._last = time.monotonic()
        self._begun_at: int | None = None
        self._text = ""

    def update(self, done: int, **info: float | str) -> None:
        """Tells that `done` of `total` units are finished; `info` is shown beside them."""
        now = time.monotonic()
        if self._begun_at is None:  # a resumed loop must not count what an earlier process did
            self._begun_at = done if done < self.total else 0
        seconds = now - self._start
        rate = (done - self._begun_at) / seconds if seconds > 0 else 0.0
        left = f", {_clock((self.total - done) / rate)} left" if rate > 0 and done < self.total else ""
        shown = "".join(f", {k} {v if isinstance(v, str) else f'{v:.4g}'}" for k, v in info.items())
        self._text = f"{self.what}: {done}/{self.total} {self.unit}s{shown} ({_rate(rate)} {self.unit}s/s{left})"
        if self._live and (now - self._last > 0.2 or done >= self.total):
            print(f"\r\033[K{self._text}", end="", file=sys.stderr, flush=True)
            self._last = now
        elif not self._live and now - self._last >= self.every_s:
            logging.info("%s", self._text)
            self._last = now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, *exc: object) -> None:
        if self._live and self._text:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        if exc_type is None and self._text:
            logging.info("%s, took %s", self._text.split(" (")[0], _clock(time.monotonic() - self._start))


def _clock(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
