"""The roll call before JAX starts: every process meets process 0, and all learn what is wrong with any of them.

JAX's own start ends in an abort with a stack trace when a process stays away, and it does not compare versions. So the
processes first meet on the coordinator's port over plain TCP: each sends one JSON line (its number, its host, its
versions), process 0 waits for all of them and answers each with the hosts or with the error. Then the port is JAX's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import socket
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from w2sr_jax.core.errors import UsageError, W2SRError

LONGEST = 65536  # bytes of a message
HELLO_S = 5.0  # a connection that says nothing for so long is no process of ours
NAMED = 8  # missing processes that an error names before it only counts

Facts = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Coordinates:
    """Where the processes meet, and which of them this is."""

    address: str  # HOST:PORT of process 0
    count: int
    index: int


def detect(timeout_s: float) -> tuple[Coordinates, Any]:
    """What Cloud TPU, GKE, Slurm or MPI say, and which local devices are this process's (None: all).

    Raises:
        UsageError: none of them is there.
        W2SRError: one is, and does not say enough.
    """
    from jax._src.clusters import ClusterEnv  # jax.distributed.initialize keeps what it finds to itself

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(
            os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, round(timeout_s)
        )
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise W2SRError(f"--distributed: the cluster does not say who takes part: {error}") from None
    address, count, index, local_devices = found
    if address is None or count is None or index is None:
        raise UsageError(
            "--distributed: no Cloud TPU, GKE, Slurm or MPI was found; "
            "give --coordinator=HOST:PORT --num_processes=N --process_id=I"
        )
    return Coordinates(address, count, index), local_devices


def versions() -> dict[str, str]:
    """What has to be the same on every host. Our own code counts by its content: a commit says less."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return {
        "w2sr_jax": f"with source {digest.hexdigest()[:12]}",
        "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"),
        "python": platform.python_version(),
    }


def meet(address: str, count: int, index: int, facts: Facts, timeout_s: float) -> list[str]:
    """Returns the host of each process once all have come and are alike.

    Args:
        address: HOST:PORT of process 0.
        count, index: how many processes there are, and which one this is.
        facts: what has to be the same everywhere, such as versions.

    Raises:
        W2SRError: the same line on every process that has come: which are missing after `timeout_s`, or which differ.
    """
    hello = {"index": index, "count": count, "host": socket.gethostname(), "facts": facts}
    host, port = split(address)
    deadline = time.monotonic() + timeout_s
    answer = _call_roll(port, hello, deadline, timeout_s) if index == 0 else _answer_roll(host, port, hello, deadline)
    if "error" in answer:
        raise W2SRError(answer["error"])
    return answer["hosts"]


def split(address: str) -> tuple[str, int]:
    """'HOST:PORT' -> (host, port); an IPv6 host may stand in brackets.

    Raises:
        W2SRError: it is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise W2SRError(f"--coordinator: expected HOST:PORT, got {address!r}")
    return host.strip("[]"), int(port)


def _call_roll(port: int, own: dict[str, Any], deadline: float, timeout_s: float) -> dict[str, Any]:
    """Process 0: waits for the others, judges, and tells each of them."""
    heard, lines = {0: own}, list[socket.socket]()
    problem = None
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(_listener(port))
        except OSError as error:
            raise W2SRError(f"--coordinator: port {port} cannot be opened here: {error.strerror}") from None
        while len(heard) < own["count"] and problem is None:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                line, _ = listener.accept()
            except TimeoutError:
                missing = [str(i) for i in range(own["count"]) if i not in heard]
                more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
                problem = (
                    f"after {timeout_s:.0f} s {len(missing)} of {own['count']} processes have not arrived: "
                    f"process {', '.join(missing[:NAMED])}{more} (there: {_hosts(heard)})"
                )
                break
            stack.enter_context(line)
            hello = _read(line, min(HELLO_S, max(0.1, deadline - time.monotonic())))
            if hello is None or not _is_hello(hello):
                continue  # a scanner, or a process that died at once
            lines.append(line)
            problem = _clash(heard, hello)
            heard[hello["index"]] = hello
        problem = problem or _difference(heard)
        answer = {"error": problem} if problem else {"hosts": [heard[i]["host"] for i in range(own["count"])]}
        for line in lines:
            with contextlib.suppress(OSError):
                line.sendall(json.dumps(answer).encode() + b"\n")
        for line in lines:  # the other side hangs up first, so that this port is free at once
            with contextlib.suppress(OSError):
                line.settimeout(HELLO_S)
                line.recv(1)
    return answer


def _answer_roll(host: str, port: int, hello: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Any other process: reaches process 0, however late it starts, and waits for its word."""
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=max(0.1, left)) as line:
                line.sendall(json.dumps(hello).encode() + b"\n")
                # Process 0 gives up at its own deadline, perhaps later than this one's; its word names the missing.
                answer = _read(line, max(0.1, deadline - time.monotonic()) + HELLO_S)
                if answer is not None:
                    return answer
        except OSError as error:  # not listening yet, or its name is not known yet
            reason = error.strerror or str(error) or type(error).__name__
        time.sleep(0.2)
    raise W2SRError(f"process {hello['index']} ({hello['host']}) got no word from process 0 at {host}:{port}: {reason}")


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", port), backlog=1024)


def _read(line: socket.socket, timeout_s: float) -> dict[str, Any] | None:
    """One JSON object from a connection; None if it sends anything else, or nothing."""
    line.settimeout(timeout_s)
    data = b""
    try:
        while not data.endswith(b"\n"):
            part = line.recv(4096)
            if not part or len(data) > LONGEST:
                return None
            data += part
        value = json.loads(data)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _is_hello(value: dict[str, Any]) -> bool:
    """Whether a process of ours may have sent this: nothing that is read later is missing, or of another type."""
    numbers, host, facts = (value.get("index"), value.get("count")), value.get("host"), value.get("facts")
    return (
        all(type(number) is int for number in numbers)  # True is an int as well
        and isinstance(host, str)
        and isinstance(facts, dict)
        and all(isinstance(fact, str) for fact in facts.values())
    )


def _clash(heard: dict[int, dict[str, Any]], hello: dict[str, Any]) -> str | None:
    who, count = f"process {hello['index']} ({hello['host']})", heard[0]["count"]
    if hello["count"] != count:
        return (
            f"{who} was started as one of {hello['count']} processes, process 0 ({heard[0]['host']}) as one of {count}"
        )
    if not 0 < hello["index"] < count:
        return f"{who}: --process_id must be below --num_processes={count}"
    if hello["index"] in heard:
        return f"two processes say that they are process {hello['index']}: {heard[hello['index']]['host']} and {who}"
    return None


def _difference(heard: dict[int, dict[str, Any]]) -> str | None:
    """What one process has and most others have not; process 0 decides a tie."""
    for name, first in heard[0]["facts"].items():
        values = {index: hello["facts"].get(name) for index, hello in heard.items()}
        if len(set(values.values())) == 1:
            continue
        (common, times), *_ = Counter(values.values()).most_common()
        if times * 2 <= len(values):
            common = first
        index = min(i for i, value in values.items() if value != common)
        return (
            f"process {index} ({heard[index]['host']}) runs {name} {values[index]}, the others {common}; "
            "every host needs the same versions"
        )
    return None


def _hosts(heard: dict[int, dict[str, Any]]) -> str:
    return ", ".join(sorted({hello["host"] for hello in heard.values()})[:NAMED])
