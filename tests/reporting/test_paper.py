"""The paper's verified figures beside a report's own."""

import pytest

from w2sr_jax.reporting import paper


def report(**scores: float) -> dict:
    """As much of an experiment's report as the table reads."""
    rows = {arm: {"b": {"pass_at_1": score, "interval": [0.0, 1.0]}} for arm, score in scores.items()}
    return {
        "kind": "experiment",
        "base": "base",
        "arms": rows,
        "baselines": {},
        "rgr": {"w2sr": {"b": {"undefined": "too small"}}},
        "ledger": {"ratios": {}},
    }


def cells(found: dict) -> dict[str, list[str]]:
    return {what: cells for what, *cells in paper.table(found)}


def test_uplift_and_the_weaker_teacher_stand_beside_the_paper_s():
    rows = cells(report(base=0.32, teacher=0.4, w2sr=0.5))
    assert rows["W2SR above its base, of the base's Pass@1"] == ["56.25 %", "56.2 %"]
    assert rows["teacher below W2SR, of W2SR's Pass@1"] == ["31.5 %", "20.0 %"]


def test_the_ratio_beside_the_paper_s_is_without_the_compilation_that_one_student_pays_for_all():
    found = report(base=0.2, w2sr=0.5, w2sr_p=0.5)
    found["ledger"]["ratios"]["w2sr_p"] = {"training": 40.0, "training_without_compilation": 30.0}
    assert cells(found)["RL's training time over W2SR-P's, without compilation"] == ["25x", "30x"]


def test_a_teacher_that_answered_another_prompt_is_not_likened():
    found = report(base=0.0, teacher=0.4, w2sr=0.5)
    found["baselines"] = {"teacher": {}}
    assert not [what for what in cells(found) if "teacher" in what or "base's" in what]


def test_how_far_an_arm_is_above_another_is_a_share_of_the_other():
    assert paper.relative(report(base=0.2, w2sr=0.3), "w2sr", "base", "b") == pytest.approx(0.5)
    assert paper.relative(report(base=0.2), "w2sr", "base", "b") is None
