"""The processes of one run: which one this is, who writes, what they tell each other, and how they end together.

All of it goes through JAX's coordination service, so nothing here needs a device, and a program of one process pays
nothing. Files that all hosts share are written by process 0 alone (`is_writer`; core/files.py asks it). A wait has a
name and a timeout, and its error says which hosts did not come. When one process fails, all end with its line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.rendezvous import Coordinates, detect, meet, versions

WAIT_S = 600.0  # for a host that is behind: reading a large model, compiling
FOREVER_S = 30 * 86400.0  # where process 0 may rightly work for hours; its death still ends the wait
LINGER_S = 2.0  # process 0 serves the others: it stays so long after its last word

_turns: Counter[str] = Counter()
_hosts: list[str] = []
_listeners: dict[str, threading.Thread] = {}
_ending = threading.Lock()  # whoever ends this process holds it, and never gives it back


def _service() -> Any:
    """JAX's client of the coordination service, None in a program of one process; imports nothing."""
    distributed = sys.modules.get("jax._src.distributed")
    return distributed.global_state.client if distributed else None


def index() -> int:
    """Which process this is, from 0."""
    return sys.modules["jax._src.distributed"].global_state.process_id if _service() else 0


def count() -> int:
    """How many there are."""
    return sys.modules["jax._src.distributed"].global_state.num_processes if _service() else 1


def is_writer() -> bool:
    """Whether this process writes what all of them share."""
    return index() == 0


def start(given: Coordinates | None, timeout_s: float) -> None:
    """Joins the other processes; before anything else that uses a device.

    Args:
        given: None finds out from Cloud TPU, GKE, Slurm or MPI, as JAX does.

    Raises:
        UsageError: nothing was given and nothing was found.
        W2SRError: a process is missing after `timeout_s`, or runs other versions; the same line on all.
    """
    import jax

    at, local_devices = (given, None) if given else detect(timeout_s)
    if not 0 <= at.index < at.count:
        raise UsageError(f"--process_id: must be from 0 to --num_processes - 1 = {at.count - 1}, got {at.index}")
    hosts = meet(at.address, at.count, at.index, versions(), timeout_s)
    if "JAX_CPU_COLLECTIVES_IMPLEMENTATION" not in os.environ:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        at.address,
        at.count,
        at.index,
        local_device_ids=local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=round(timeout_s),
    )
    _hosts[:] = hosts
    if at.count > 1:
        listen("end", _end_with_others)


def who(process: int) -> str:
    """A process as messages name it."""
    return f"process {process} ({_hosts[process]})" if process < len(_hosts) else f"process {process}"


def gather(name: str, value: Any, timeout_s: float = WAIT_S) -> list[Any]:
    """The JSON value of every process, in their order; all call it, and wait for each other.

    Raises:
        W2SRError: some have not come after `timeout_s`: says which.
    """
    if (service := _service()) is None:
        return [json.loads(json.dumps(value))]
    _turns[name] += 1
    key = f"w2sr/{name}/{_turns[name]}"
    service.key_value_set(f"{key}/{index()}", json.dumps(value))
    try:
        _interruptible(service.wait_at_barrier, key, round(timeout_s * 1000))
    except RuntimeError as error:
        there = _values(service, key)
        missing = [who(process) for process in range(count()) if process not in there]
        reason = f"not there: {', '.join(missing)}" if missing else str(error).split("\n")[0]
        raise W2SRError(f"waiting for every process at {name!r} failed within {timeout_s:.0f} s: {reason}") from None
    found = _values(service, key)
    if is_writer() and _turns[name] > 1:  # all have read what was told the time before
        service.key_value_delete(f"w2sr/{name}/{_turns[name] - 1}")
    return [found[process] for process in range(count())]


def _interruptible(call: Callable[..., Any], *args: Any) -> None:
    """Calls in another thread: Python hears no signal while its main thread is inside the service, maybe for hours."""
    if threading.current_thread() is not threading.main_thread():
        call(*args)
        return
    errors: list[BaseException] = []
    returned = threading.Event()  # a signal that raises during Thread.join leaves the thread marked as ended

    def run() -> None:
        try:
            call(*args)
        except BaseException as error:
            errors.append(error)
        finally:
            returned.set()

    threading.Thread(target=run, daemon=True).start()
    returned.wait()
    if errors:
        raise errors[0]


def _values(service: Any, key: str) -> dict[int, Any]:
    with contextlib.suppress(RuntimeError):  # none of that name
        return {int(path.rsplit("/", 1)[1]): json.loads(text) for path, text in service.key_value_dir_get(key)}
    return {}


def interleave(name: str, mine: list[Any]) -> list[Any]:
    """Puts items back into one list that were dealt out as items[index()::count()]."""
    parts = gather(name, mine, FOREVER_S)
    return [parts[place % len(parts)][place // len(parts)] for place in range(sum(map(len, parts)))]


def barrier(name: str, timeout_s: float = WAIT_S) -> None:
    """Waits until every process has come here; see `gather`."""
    gather(name, None, timeout_s)


def agree(name: str, facts: dict[str, Any]) -> None:
    """Refuses to go on where a process holds something else than process 0.

    Raises:
        W2SRError: names the process and what differs, on every process.
    """
    mine = {key: json.loads(json.dumps(value)) for key, value in facts.items()}
    for process, theirs in enumerate(gathered := gather(name, mine)):
        first = gathered[0]
        if differ := sorted(k for k in first.keys() | theirs.keys() if first.get(k) != theirs.get(k)):
            shown = "; ".join(f"{k}: {theirs.get(k)!r}, not {first.get(k)!r}" for k in differ[:3])
            raise W2SRError(f"{who(process)} differs from {who(0)} in its {name}: {shown}")


@contextlib.contextmanager
def writer_first(name: str) -> Iterator[None]:
    """Process 0 goes through the body first, then the others, then all go on: for a file that opening may mend."""
    if not is_writer():
        barrier(f"{name}: process 0")
    yield
    if is_writer():
        barrier(f"{name}: process 0")
    barrier(f"{name}: all")


def publish(name: str, value: Any) -> None:
    """Tells a JSON value to whoever listens to that name, on every process; what comes after the first is not heard."""
    with contextlib.suppress(RuntimeError):
        _service().key_value_set(f"w2sr/said/{name}", json.dumps(value))


def listen(name: str, hear: Callable[[Any], None]) -> None:
    """Calls `hear` with what `publish` tells, in a thread; never, if the processes part before."""
    service = _service()

    def wait() -> None:
        try:
            value = json.loads(service.blocking_key_value_get(f"w2sr/said/{name}", round(FOREVER_S * 1000)))
        except RuntimeError:  # the service has gone: JAX says so
            return
        if value is not None:
            hear(value)

    _listeners[name] = threading.Thread(target=wait, daemon=True)
    _listeners[name].start()


def leave() -> None:
    """The orderly end: waits for the others and says good-bye to them."""
    if _service() is None:
        return
    import jax

    barrier("the end", FOREVER_S)
    # A thread that is inside the service while the interpreter ends would abort the process.
    for name, thread in _listeners.items():
        publish(name, None)
        thread.join()
    _listeners.clear()
    jax.distributed.shutdown()


def end(code: int, line: str) -> int:
    """Prints why this process ends and returns the exit code; with several processes, ends all of them."""
    if _service() is None or count() == 1:
        print(line, file=sys.stderr)
        return code
    _ending.acquire()
    print(line, file=sys.stderr, flush=True)
    # Another may have been first, with the same news or the cause of it. A dead coordinator would keep us waiting.
    word = {"code": code, "line": line, "process": index()}
    teller = threading.Thread(target=publish, args=("end", word), daemon=True)
    teller.start()
    teller.join(LINGER_S)
    if is_writer():
        time.sleep(LINGER_S)
    return _exit(code)


def _end_with_others(word: dict[str, Any]) -> None:
    """Hears the last word of a process that fails, so that none waits for it in a collective."""
    time.sleep(LINGER_S / 4)  # who is about to say the same says it in its own words
    _ending.acquire()
    print(f"{word['line']} [{who(word['process'])}]", file=sys.stderr, flush=True)
    if is_writer():
        time.sleep(LINGER_S)
    _exit(word["code"])


def _exit(code: int) -> NoReturn:
    """Without waiting for threads and for the other processes, which an ordinary exit does."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
