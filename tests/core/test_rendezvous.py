"""The roll call, with threads for processes: nobody gets past it alone, and all hear the same reason."""

import socket
import threading
import time

import pytest

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.rendezvous import meet, split

VERSIONS = {"jax": "1", "jaxlib": "2"}


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def call(port, callers, timeout_s=8.0):
    """callers: (count, index, facts, seconds to be late) of each; returns what each got, an error as its text."""
    results = [None] * len(callers)

    def run(place, count, index, facts, late):
        time.sleep(late)
        try:
            results[place] = meet(f"127.0.0.1:{port}", count, index, facts, timeout_s)
        except W2SRError as error:
            results[place] = str(error)

    threads = [threading.Thread(target=run, args=(place, *caller)) for place, caller in enumerate(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_all_learn_the_hosts_in_whatever_order_they_come(port):
    late = (0.4, 0.0, 0.7)
    results = call(port, [(3, i, VERSIONS, late[i]) for i in range(3)])
    assert results == [[socket.gethostname()] * 3] * 3
    socket.create_server(("127.0.0.1", port)).close()  # the port is free for JAX


def test_who_is_missing_is_told_to_all_who_came(port):
    results = call(port, [(4, 0, VERSIONS, 0.0), (4, 2, VERSIONS, 0.0)], timeout_s=1.5)
    assert results[0] == results[1]
    assert results[0].startswith("after 2 s 2 of 4 processes have not arrived: process 1, 3 (there: ")


def test_without_process_0_the_others_end_in_time(port):
    began = time.monotonic()
    (error,) = call(port, [(2, 1, VERSIONS, 0.0)], timeout_s=1.0)
    assert "got no word from process 0 at 127.0.0.1:" in error
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("odd", "named"), [(0, "process 0"), (2, "process 2")], ids=["process 0 differs", "another differs"]
)
def test_the_host_with_another_version_is_named_to_all(port, odd, named):
    facts = [VERSIONS | {"jaxlib": "9" if index == odd else "2"} for index in range(3)]
    results = call(port, [(3, index, facts[index], 0.0) for index in range(3)])
    assert len(set(results)) == 1
    assert results[0].startswith(f"{named} (")
    assert "runs jaxlib 9, the others 2; every host needs the same versions" in results[0]


def test_two_with_one_number_and_other_counts_are_refused(port):
    results = call(port, [(3, 0, VERSIONS, 0.0), (3, 1, VERSIONS, 0.1), (3, 1, VERSIONS, 0.2)])
    assert all("two processes say that they are process 1" in result for result in results)
    results = call(port, [(2, 0, VERSIONS, 0.0), (3, 1, VERSIONS, 0.1)])
    assert all("was started as one of 3 processes, process 0" in result for result in results)


def test_a_stranger_on_the_port_changes_nothing(port):
    def scan():
        facts = b'"host": "h", "facts": {}}\n'
        odd = (b'{"index": 1}\n', b'{"index": 1, "count": "2", ' + facts, b'{"index": true, "count": 2, ' + facts)
        for words in (b"GET / HTTP/1.0\n", b"", b"[1]\n", *odd, b'{"index": 1, "count": 2, "host": 5, "facts": []}\n'):
            for _ in range(50):
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
                        line.sendall(words)
                        break
                except OSError:
                    time.sleep(0.02)

    scanner = threading.Thread(target=scan)
    scanner.start()
    results = call(port, [(2, 0, VERSIONS, 0.0), (2, 1, VERSIONS, 1.0)])
    scanner.join()
    assert results == [[socket.gethostname()] * 2] * 2


def test_a_coordinator_that_is_no_address_is_one_line():
    assert split("[::1]:80") == ("::1", 80)
    for wrong in ("host", "host:", ":80", "host:99999", "host:http"):
        with pytest.raises(W2SRError, match="--coordinator: expected HOST:PORT"):
            split(wrong)
