"""A child process and its pipes: what it says is read, and how it ends is told in one line."""

import os
import sys
import textwrap
import time

import pytest

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.engine.child import Child

ECHO = """
import sys
for line in sys.stdin:
    print(line, end="", flush=True)
"""


@pytest.fixture
def start():
    """start(program) -> Child, closed with the test."""
    children = []

    def started(program: str) -> Child:
        children.append(Child([sys.executable, "-c", textwrap.dedent(program)], "kid", os.environ))
        return children[-1]

    yield started
    for child in children:
        child.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_lines_of_any_length_come_back_whole_and_in_order(start):
    child = start(ECHO)
    messages = [{"n": 1}, {"text": "é\n" * 200_000}, {"ids": list(range(1000))}]
    for message in messages:
        child.send(message)
        assert child.receive() == message
    child.close(patience_s=5)
    assert not is_alive(child.pid)


def test_many_lines_in_one_piece_are_many_messages(start):
    child = start(
        'print("".join(\'{"n": %d}\\n\' % i for i in range(5)), end="", flush=True); import time; time.sleep(60)'
    )
    assert [child.receive()["n"] for _ in range(5)] == list(range(5))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ValueError('no room')", "exited with code 1: ValueError: no room"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL: by hand, or because memory was short"),
        ("import sys; sys.exit('enough')", "exited with code 1: enough"),
        ("import sys; print('a\\nb', file=sys.stderr)", "exited with code 0: b"),
        (
            "import sys; sys.exit('ERROR 12:00 [core.py] RuntimeError: too big\\nRuntimeError: See root cause above.')",
            "exited with code 1: RuntimeError: too big",
        ),
    ],
)
def test_a_death_is_one_line_with_exit_and_last_error(start, program, reason):
    with pytest.raises(W2SRError) as raised:
        start(program).receive()
    assert str(raised.value) == f"kid: the process {reason}"


def test_a_child_that_dies_is_noticed_though_a_grandchild_holds_its_pipe(start):
    child = start("import subprocess; subprocess.Popen(['sleep', '60'])")
    with pytest.raises(W2SRError, match="exited with code 0"):
        child.receive()


def test_writing_to_a_dead_child_is_the_same_error(start):
    child = start("raise ValueError('gone')")
    with pytest.raises(W2SRError, match="gone"):
        child.send({"text": "x" * 1_000_000})  # more than a pipe holds


def test_what_is_no_message_is_refused(start):
    for output in ("hello", "[1]"):
        with pytest.raises(W2SRError, match=r"kid: unexpected output: (hello|\[1\])"):
            start(f"print('{output}')").receive()


def test_closing_ends_a_deaf_child_and_what_it_started(start):
    child = start(
        """
        import json, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(json.dumps({"pid": subprocess.Popen(["sleep", "60"]).pid}), flush=True)
        time.sleep(60)
        """
    )
    pid = child.receive()["pid"]
    child.close()
    child.close()
    assert not is_alive(child.pid)
    for _ in range(50):
        if not is_alive(pid):
            break
        time.sleep(0.1)  # init takes a moment to bury it
    else:
        pytest.fail(f"{pid} still runs")


def test_ctrl_c_does_not_reach_the_child(start):
    child = start(ECHO)
    child.send({})
    assert child.receive() == {}
    assert os.getpgid(child.pid) != os.getpgid(0)  # a terminal signals its foreground process group
