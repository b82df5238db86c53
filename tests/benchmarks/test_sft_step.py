"""The benchmark of one SFT step from end to end on a tiny model."""

import json
from pathlib import Path

from benchmarks.sft_step import main

TINY = str(Path(__file__).parents[2] / "configs" / "compare" / "tiny.json")
OPTIONS = ["--shape", TINY, "--rows", "4", "--length", "128", "--grad_accum", "2", "--dtype", "float32", "--steps", "2"]


def test_a_tiny_step_is_set_against_the_peak(capsys):
    assert main([*OPTIONS, "--peak_tflops", "0.1", "--kernels", "3"]) == 0
    said = capsys.readouterr().out
    line = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert line["against"].startswith("the peak")
    assert 0 < line["ratio"] < 1
    assert line["runs"] == 1  # of the peak
    first, last = (float(word) for word in said.split("loss ")[1].split(";")[0].split(" to "))
    assert last < first
    assert "of 512 tokens are no padding" in said
    assert "kernels: 0.0 ms" in said  # a CPU has none


def test_a_chip_that_is_not_known_needs_its_peak(capsys):
    assert main(OPTIONS) == 2
    assert "--peak_tflops" in capsys.readouterr().err
