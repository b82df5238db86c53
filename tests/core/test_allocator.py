"""Huge pages for the heap on a CPU: who starts again, and that it is the same command in the same process."""

import os
import subprocess
import sys

import pytest

from w2sr_jax.core.allocator import TUNABLES, wants_huge_pages

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
    assert wants_huge_pages(stage, argv, env, platform) is wanted


# The command line of w2sr, which tells what became of it where the stage would begin.
TELLS = """
import os, sys
import w2sr_jax.core.runtime as runtime
runtime.launch = lambda stage, main, config, argv: print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *argv) or 7
from w2sr_jax import cli
sys.exit(cli.main())
"""


@pytest.mark.parametrize(("given", "found"), [({}, TUNABLES), ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}, None)])
def test_the_command_goes_on_in_the_same_process_with_the_same_arguments(given, found):
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | CPU | given
    command = [sys.executable, "-c", TELLS, "evaluate", "--workdir=a b", "--config.x='1'"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 7
    tunables = found or given["GLIBC_TUNABLES"]
    assert said.strip() == f"{process.pid} {tunables} --workdir=a b --config.x='1'"
