"""`make bench` on the tiny comparison, without what is slow to import. No wall time."""

import dataclasses
import json

import pytest

from benchmarks import bench, history
from w2sr_jax.core.rows import Row
from w2sr_jax.twin import figures


def test_a_comparison_has_a_directory_of_its_own():
    assert bench.name("/a/compare.py:cpu-packed") == "compare-cpu-packed"
    assert bench.name("compare.py") == "compare"


def of(against, what="training step"):
    return Row(what=what, ours=1.0, peer=2.0, unit="s", against=against, runs=5)


@pytest.mark.parametrize(
    ("rows", "missing", "said"),
    [
        ([of("eager"), of("trl"), of("the FLOPs' own growth")], {}, None),
        ([of("eager"), of("trl")], {"vllm": "vllm is not installed"}, None),  # history has none of it
        ([of("eager")], {"trl": "trl is not installed"}, "LEFT OUT: TRL's SFTTrainer: trl is not installed"),
        ([of("the FLOPs' own growth")], {}, "nothing was compared with a peer"),
        ([], {}, "nothing was compared with a peer"),
    ],
    ids=["all", "new", "one left out", "growth alone", "nothing"],
)
def test_a_check_without_a_peer_that_history_has_fails(rows, missing, said, tmp_path, monkeypatch, capsys):
    def named(one):
        return dataclasses.replace(one, against=figures.NAMES.get(one.against, one.against))

    kept = tmp_path / "history.jsonl"
    history.accept([named(of(against)) for against in ("eager", "trl", "the FLOPs' own growth")], "c", "d", kept)
    monkeypatch.setattr(history.read, "__defaults__", (kept,))
    left_out = {figures.NAMES[peer]: why for peer, why in missing.items()}
    monkeypatch.setattr(bench, "measure", lambda *_: (list(map(named, rows)), True, left_out, 0.0))
    monkeypatch.setattr("sys.argv", ["bench", "--check"])
    assert bench.main() == (1 if said else 0)
    output = capsys.readouterr()
    assert (said or "") in output.out + output.err


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
    assert "nothing was compared with a peer: history.jsonl holds no such figure of" in capsys.readouterr().err
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
