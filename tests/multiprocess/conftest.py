"""Inputs that the multi-process tests share, and where their processes keep compiled programs."""

from pathlib import Path

import pytest
import tasks


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    return tasks.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")
