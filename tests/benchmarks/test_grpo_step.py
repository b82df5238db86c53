"""The breakdown of GRPO steps, on seconds made up here (tests/stages/test_grpo.py has those of a real step)."""

import json

from benchmarks.grpo_step import main, parts

ROW = {
    "rollout_seconds": 5.0, "data_wait_seconds": 1.0, "old_logprobs_seconds": 0.5, "reference_seconds": 0.5,
    "gradient_seconds": 2.0, "sync_seconds": 1.0,
}  # fmt: skip


def test_grading_is_taken_out_of_the_rollout():
    found = parts(ROW)
    assert (found["rollout"], found["reward"]) == (4.0, 1.0)
    assert sum(found.values()) == 9.0


def test_the_steps_that_compile_are_not_counted(tmp_path):
    rows = [{"step": i, "time": 0.0} | ROW | ({"gradient_seconds": 99.0} if i < 3 else {}) for i in range(8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in main(tmp_path).splitlines()[2:]]
    assert lines[4] == ["gradient and optimizer", "2", "22.2"]
    assert lines[-1] == ["all, of 5 steps", "9", "100.0"]
