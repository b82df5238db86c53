"""What a decoding step must read, and the benchmark from end to end on a tiny model."""

import json
from pathlib import Path

import jax

from benchmarks.decode_roofline import main, step_bytes
from w2sr_jax.core.files import read_json
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.params import abstract_params

SHAPES = Path(__file__).parents[2] / "configs"


def test_a_step_reads_every_matrix_once_and_the_cache_of_every_row():
    config = ModelConfig.from_hf(read_json(SHAPES / "plan" / "qwen2.5-1.5b.json"))
    weights, held = step_bytes(config, 2, 128, 0), sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))
    assert 0.999 < weights / (2 * held) < 1  # norms and biases are left out
    cache = 128 * 100 * config.num_layers * 2 * config.num_kv_heads * config.head_dim * 2
    assert step_bytes(config, 2, 128, 100) - weights == cache


def test_a_tiny_model_s_decoding_is_set_against_the_roofline_or_said_to_be_lost_in_noise(capsys):
    shape = str(SHAPES / "compare" / "tiny.json")
    options = ["--shape", shape, "--dtype", "float32", "--rows", "2", "--tokens", "256", "--runs", "1"]
    code = main([*options, "--bandwidth_gb_s", "20"])
    said = capsys.readouterr()
    if code:  # on a busy machine half of the answer may take as long as the whole
        assert code == 1
        assert "more --tokens" in said.err
        return
    line = json.loads(next(line for line in said.out.splitlines() if line.startswith("{")))
    assert line["against"] == "the bandwidth roofline"
    assert line["ours"] > 0


def test_answers_that_take_no_longer_than_their_halves_are_refused(capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.decode_roofline.time.perf_counter", lambda: 0.0)
    shape = str(SHAPES / "compare" / "tiny.json")
    options = ["--shape", shape, "--dtype", "float32", "--rows", "2", "--tokens", "2", "--runs", "1"]
    assert main([*options, "--bandwidth_gb_s", "20"]) == 1
    assert "more --tokens" in capsys.readouterr().err


def test_a_chip_that_is_not_known_needs_its_bandwidth(capsys):
    assert main([]) == 2
    assert "--bandwidth_gb_s" in capsys.readouterr().err
