"""A child process that talks JSON lines: one dict a line, requests on its stdin, answers on its stdout.

The child belongs to a session of its own, so that neither Ctrl-C nor its own process groups cross over. What it logs
goes to a temporary file, whose last error names the reason when it dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from w2sr_jax.core.errors import W2SRError

TERM_S = 5.0  # from SIGTERM to SIGKILL
POLL_S = 1.0  # a grandchild may keep the pipe open after the child's death, so the child is looked at too
LOG_TAIL_BYTES = 1 << 16
ERROR = re.compile(r"\b(\w*(?:Error|Exception)\b: .*)")


class ChildDied(W2SRError):
    """The process has ended, or said that it cannot go on."""


class Child:
    """A running child process.

    Args:
        command: program and arguments.
        name: what errors call it.
        env: its environment.
    """

    def __init__(self, command: Sequence[str], name: str, env: Mapping[str, str]):
        self._name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=env,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        self._buffer, self._lines = b"", list[bytes]()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: Mapping[str, Any]) -> None:
        """Writes one line.

        Raises:
            ChildDied: it is dead.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self.death() from None

    def has_said(self, patience_s: float) -> bool:
        """Whether a line is there to be received, now or `patience_s` later.

        Raises:
            ChildDied: none is, and none will come.
        """
        if self._lines:
            return True
        dead = self._process.poll() is not None
        if not select.select([self._output], [], [], 0.0 if dead else patience_s)[0]:
            if dead:
                raise self.death()
            return False
        if not (chunk := os.read(self._output, 1 << 20)):
            raise self.death()
        *self._lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return bool(self._lines)

    def receive(self) -> dict[str, Any]:
        """The next line, waited for as long as the child lives.

        Raises:
            ChildDied: with its exit and the last error that it logged.
            W2SRError: what it wrote is no message.
        """
        while not self.has_said(POLL_S):
            pass
        line = self._lines.pop(0)
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise W2SRError(f"{self._name}: unexpected output: {line[:80].decode(errors='replace')}")
        return message

    def last_error(self) -> str:
        """The last line of the log that names an error, or else its last line."""
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, end - LOG_TAIL_BYTES))
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        # vLLM ends with "Engine core initialization failed. See root cause above": the line above is wanted.
        found = [match[1] for match in map(ERROR.search, lines) if match and "root cause" not in match[1]]
        return (found or lines or ["it logged nothing"])[-1][:300]

    def close(self, patience_s: float = 0.0) -> None:
        """Ends its input and waits `patience_s`, then SIGTERM, then SIGKILL to all of its process group."""
        if self._log.closed:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        for seconds, number in ((patience_s, signal.SIGTERM), (TERM_S, signal.SIGKILL)):
            try:
                self._process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                self._kill_group(number)
        self._kill_group(signal.SIGKILL)  # what it may have started itself
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _kill_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def death(self) -> ChildDied:
        """How it ended, for the caller to raise."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_S)  # it is ending: let its own exit code be seen
        code = self._process.returncode
        how = "closed its output" if code is None else f"exited with code {code}"
        reason = self.last_error()
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL and not ERROR.search(reason):
                reason = "by hand, or because memory was short"  # the kernel tells its own log only
        return ChildDied(f"{self._name}: the process {how}: {reason}")
