"""setup.sh installs once for each choice of extras, and again when the lock file is another one."""

import itertools
import os

import pytest


@pytest.fixture
def setup(host):
    """Runs setup.sh where a Python is in .venv already; returns the extras of each call of uv so far."""
    python = host.root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/bash\n")
    python.chmod(0o755)
    host.fake("uv")

    def run(extras):
        done = host.run("setup.sh", extras)
        assert done.returncode == 0, done.stderr
        calls = host.calls("sync")
        return [",".join(word for flag, word in itertools.pairwise(call) if flag == "--extra") for call in calls]

    return run


def test_a_second_run_with_the_same_extras_installs_nothing(setup):
    assert setup("dev,torch") == ["dev,torch"]
    assert setup("dev,torch") == ["dev,torch"]
    assert setup("dev") == ["dev,torch", "dev"]
    assert setup("dev,torch") == ["dev,torch", "dev"]  # they are still there


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
def test_another_lock_file_is_installed_though_it_is_older_than_the_packages(host, setup, name):
    setup("dev")
    setup("tpu")
    before = (host.root / name).read_text()
    (host.root / name).write_text(before + "# another commit\n")
    os.utime(host.root / name, (0, 0))  # as tar gives it, from a commit's archive
    assert setup("tpu") == ["dev", "tpu", "tpu"]
    (host.root / name).write_text(before)
    # What was installed from the first file has been replaced since, whatever its extras.
    assert setup("dev") == ["dev", "tpu", "tpu", "dev"]


def test_an_installation_that_failed_is_tried_again(host, setup):
    host.fake("uv", "[[ $1 != sync ]] || exit 1")
    assert host.run("setup.sh", "dev").returncode == 1
    host.fake("uv")
    assert setup("dev") == ["dev", "dev"]
