"""A strict environment for every test: CPU, 8 fake devices, no network."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from absl import flags


@pytest.fixture(autouse=True, scope="session")
def _flags_parsed():
    """Grain reads absl flags, which only app.run parses."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
