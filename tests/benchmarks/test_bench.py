"""`make bench` on the tiny comparison, without what is slow to import. No wall time."""

import json

import pytest

from benchmarks import bench, history


def test_a_comparison_has_a_directory_of_its_own():
    assert bench.name("/a/compare.py:cpu-packed") == "compare-cpu-packed"
    assert bench.name("compare.py") == "compare"


@pytest.mark.slow
@pytest.mark.torch
def test_the_table_is_accepted_and_then_held_against(tmp_path, monkeypatch, capsys):
    picked = tmp_path / "config.py"
    picked.write_text(
        "from w2sr_jax.core.command_line import load_config_file\n"
        "def get_config():\n"
        "    config = load_config_file('configs/compare.py:tiny')\n"
        "    config.peers, config.grpo_shapes, config.generate = ('eager',), (), (0, 1, 1)\n"
        "    return config\n"
    )
    kept = tmp_path / "history.jsonl"
    monkeypatch.setattr(bench, "scaling_rows", lambda *arguments: [])  # nine more processes
    monkeypatch.setattr(history.accept, "__defaults__", (kept,))
    monkeypatch.setattr(history.read, "__defaults__", (kept,))
    argv = ["bench", f"--config={picked}", f"--workdir={tmp_path / 'work'}"]
    monkeypatch.setattr("sys.argv", [*argv, "--check"])
    assert bench.main() == 1
    assert "nothing was compared: history.jsonl holds no figure of" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*argv, "--accept"])
    monkeypatch.setattr(history, "MOST_OTHERS", 1.0)  # whatever else runs while tests do
    monkeypatch.setattr(bench, "is_dirty", lambda: True)
    assert bench.main() == 1
    assert "not accepted: the code is not that of a commit" in capsys.readouterr().err
    assert not kept.exists()
    monkeypatch.setattr(bench, "is_dirty", lambda: False)
    assert bench.main() == 0
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert {line["what"].split(",")[0] for line in lines} >= {"training step", "input pipeline alone", "data wait"}
    # The same workdir gives the same figures of training again; a history that was ten times better fails.
    for line in lines:
        line["ratio"] *= 10
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr("sys.argv", [*argv, "--check"])
    assert bench.main() == 1
    assert "FELL: training step" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*argv, "--accept"])
    assert bench.main() == 1
    assert "ratios fell" in capsys.readouterr().err
    assert len(kept.read_text().splitlines()) == len(lines)
