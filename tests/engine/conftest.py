"""What the tests of engines share."""

import pytest

from tests.engine.models import save_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    save_model(root)
    return root
