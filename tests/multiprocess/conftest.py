"""Inputs that the multi-process tests share."""

from pathlib import Path

import pytest
import tasks


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    return tasks.make_inputs(tmp_path_factory.mktemp("inputs"))
