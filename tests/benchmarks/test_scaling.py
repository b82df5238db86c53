"""How cost grows along each axis, two tiny points apiece, each in a process of its own. No wall time asserted."""

import os

import pytest

from benchmarks.scaling import scaling_rows
from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.twin.side import environment


@pytest.mark.slow
def test_every_axis_gets_its_row(tmp_path, monkeypatch):
    for name, sizes in {"LAYERS": (1, 2), "TOKENS": (32, 64), "ROWS": (2, 4), "MIDDLE": (1, 32, 2)}.items():
        monkeypatch.setattr(f"benchmarks.scaling.{name}", sizes)
    config = load_config_file("configs/compare.py:tiny")
    layers, tokens, rows = scaling_rows(config, tmp_path, 1, environment(1, os.environ), updates=1)
    assert layers.what == "growth of the training step's seconds with layers (1, 2), layers of tiny"
    assert tokens.what == "growth of the training step's seconds with tokens of a row (32, 64), layers of tiny"
    assert rows.what == "growth of the training step's seconds with rows (2, 4), layers of tiny"
    assert 0 < layers.peer < 1 < tokens.peer  # the vocabulary does not grow with layers; attention does, twice
    assert rows.peer == pytest.approx(1)
    assert isinstance(layers.ours, float)
