"""How cost grows along each axis, two tiny points apiece, each in a process of its own. No wall time asserted."""

import dataclasses
import os

import pytest

from benchmarks.scaling import scaling_rows
from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.tool_config import RandomConfig
from w2sr_jax.twin.side import environment


def test_without_random_models_the_growth_is_left_out_and_it_is_said(tmp_path, caplog):
    config = dataclasses.replace(load_config_file("configs/compare.py:tiny"), random=RandomConfig())
    assert not config.random.shape
    with caplog.at_level("WARNING", logger="absl"):
        assert scaling_rows(config, tmp_path, 1, {}) == []
    assert "left out, since it takes random models" in caplog.text


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
