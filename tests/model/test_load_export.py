"""Memory beyond the parameters while a checkpoint of 1.5B parameters is loaded and exported: benchmarks/load_export."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_host_holds_the_parameters_and_less_than_two_gib_more(tmp_path):
    argv = ["-m", "benchmarks.load_export", "--config=configs/plan/qwen2.5-1.5b.json", f"--dir={tmp_path}"]
    done = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exported weights equal the first ones: True" in done.stdout
    assert not (tmp_path / "exported").exists()
    for path in (tmp_path / "random-qwen2.5-1.5b").iterdir():
        path.unlink()  # pytest keeps the folders of the last runs
