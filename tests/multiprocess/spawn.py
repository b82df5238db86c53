"""Real processes for tests: `spawn(n, argv)` starts them together, `Group.wait` ends them all at a hard timeout.

Each process leads a process group of its own, so that nothing that it started outlives it.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def one_device() -> dict[str, str]:
    """The environment of a process that sees one device; what it compiles is kept as that of the tests is."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    return os.environ | {"XLA_FLAGS": " ".join(flags)}


@dataclasses.dataclass
class Done:
    """How one process ended."""

    code: int
    output: str  # stdout and stderr

    @property
    def lines(self) -> list[str]:
        """What it said, without the lines of JAX's C++ parts."""
        return [line for line in self.output.splitlines() if line.startswith("w2sr")]


class Group:
    """Running processes, in the order of their numbers."""

    def __init__(self, commands: Sequence[Sequence[str]], logs: Path, environments: Sequence[dict[str, str]]):
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = [logs / f"{number}.log" for number in range(len(commands))]
        self.processes = []
        for command, log, environment in zip(commands, self.logs, environments):
            with log.open("wb") as output:
                self.processes.append(
                    subprocess.Popen(
                        command, stdout=output, stderr=output, env=environment, cwd=ROOT, start_new_session=True
                    )
                )

    def send(self, number: int, what: int) -> None:
        self.processes[number].send_signal(what)

    def wait(self, timeout_s: float) -> list[Done]:
        """Waits for all; at the timeout every group is killed and the test fails with what they said."""
        deadline, late = time.monotonic() + timeout_s, []
        try:
            for number, process in enumerate(self.processes):
                try:
                    process.wait(max(0.01, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    late.append(number)
        finally:
            self.kill()
        done = [Done(p.returncode, log.read_text(errors="replace")) for p, log in zip(self.processes, self.logs)]
        assert not late, f"processes {late} hang after {timeout_s} s:\n" + "\n".join(d.output[-1500:] for d in done)
        return done

    def kill(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def spawn(
    count: int,
    argv: Sequence[str],
    logs: Path,
    *,
    extra: dict[int, Sequence[str]] | None = None,
    only: Sequence[int] | None = None,
    variables: dict[int, dict[str, str]] | None = None,
) -> Group:
    """Starts `python ARGV` as `count` processes of one CPU device each, with coordinates on the loopback.

    Args:
        logs: directory for what they print.
        extra: more arguments of single processes.
        only: start these numbers and leave the others out.
        variables: more of the environment of single processes.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = one_device() | {"PYTHONPATH": str(ROOT)}
    numbers = range(count) if only is None else only
    commands = [
        [
            *(sys.executable, *argv),
            *(f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}", f"--process_id={number}"),
            *(extra or {}).get(number, ()),
        ]
        for number in numbers
    ]
    return Group(commands, logs, [environment | (variables or {}).get(number, {}) for number in numbers])
