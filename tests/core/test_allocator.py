"""How the heap is kept on a CPU: who starts again, and that it is the same command in the same process."""

import os
import subprocess
import sys

import pytest

from w2sr_jax.core.allocator import HELD, KEPT, wants_tunables

CPU = {"JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
    ("stage", "argv", "env", "platform", "wanted"),
    [
        ("sft", [], CPU, "linux", True),
        ("run", ["--workdir=x"], CPU, "linux", True),
        ("report", [], CPU, "linux", False),
        ("sft", ["--help"], CPU, "linux", False),
        ("sft", [], CPU | {"GLIBC_TUNABLES": ""}, "linux", False),
        ("sft", [], {"TPU_ACCELERATOR_TYPE": "v6e-1"}, "linux", False),
        ("sft", [], CPU, "darwin", False),
    ],
)
def test_only_long_stages_on_a_cpu_start_again_and_only_where_nobody_has_decided(stage, argv, env, platform, wanted):
    assert wants_tunables(stage, argv, env, platform) is wanted


# The command line of w2sr, which tells what became of it where the stage would begin.
TELLS = """
import os, sys
import w2sr_jax.core.runtime as runtime
runtime.launch = lambda stage, main, config, argv: print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *argv) or 7
from w2sr_jax import cli
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("stage", "given", "tunables"),
    [("evaluate", {}, HELD), ("sft", {}, KEPT), ("sft", {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, None)],
)
def test_the_command_goes_on_in_the_same_process_with_the_same_arguments(stage, given, tunables):
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | CPU | given
    command = [sys.executable, "-c", TELLS, stage, "--workdir=a b", "--config.x='1'"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 7
    assert said.strip() == f"{process.pid} {tunables or given['GLIBC_TUNABLES']} --workdir=a b --config.x='1'"


# As XLA does it: a large buffer in a thread that is not the first, again and again.
FAULTS = """
import resource, threading
import numpy as np
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill():
    np.ones(1 << 25, np.float32)
    before = faults()
    np.ones(1 << 25, np.float32)
    print(faults() - before)
thread = threading.Thread(target=fill)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_a_thread_frees_it_gets_again_without_a_page_being_cleared():
    pages = {}
    for tunables in ("", KEPT):
        env = os.environ | {"GLIBC_TUNABLES": tunables}
        said = subprocess.run([sys.executable, "-c", FAULTS], env=env, capture_output=True, text=True, check=True)
        pages[tunables] = int(said.stdout)
    assert pages[""] >= 64  # of 2 MiB, at most
    assert pages[KEPT] < 8


# A large buffer, freed; many small ones; the large one again.
AGAIN = """
import ctypes, os, sys
from w2sr_jax.core.allocator import reserve
if sys.argv[1] == "reserve":
    reserve(os.environ)
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype, libc.free.argtypes = [ctypes.c_size_t], ctypes.c_void_p, [ctypes.c_void_p]
first = libc.malloc(600 << 20)
after = libc.malloc(1 << 20)
libc.free(first)
small = [libc.malloc(8 << 10) for _ in range(40_000)]
print(libc.malloc(600 << 20) == first)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize(("reserved", "whole"), [("reserve", "True"), ("none", "False")])
def test_a_large_buffer_finds_its_hole_whole_after_many_small_ones(reserved, whole):
    env = os.environ | {"GLIBC_TUNABLES": KEPT}
    said = subprocess.run([sys.executable, "-c", AGAIN, reserved], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == whole
