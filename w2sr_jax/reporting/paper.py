"""What the paper reports (arXiv 2505.20072), beside what was measured here.

Only figures that were read in the paper itself stand here; its tables could not be had, so that no cell of them is
quoted.
"""

from __future__ import annotations

from typing import Any

from w2sr_jax.reporting import tables

Report = dict[str, Any]
SOURCE = "arXiv 2505.20072"
RECOVERED, TIMES_FASTER, TIMES_SMALLER = "about 94 %", "25", "4.7"
WEAKER, UPLIFT = "31.5 %", "56.25 %"  # of teachers that are so much smaller; what they lift their students by
MATH_7B = {"base": "30.71 (Math-7B)", "w2sr_n": "43.77 (Math-7B)"}
ABOUT = (
    "The paper's figures are its headlines for Qwen2.5 and Llama students; none of its table cells could be verified, "
    "so no other is quoted. What its percentages are of could not be verified either: those here say it. A small "
    "experiment need not agree with them."
)
STUDENTS = {"w2sr": "W2SR", "w2sr_p": "W2SR-P", "w2sr_n": "W2SR-N"}


def table(report: Report) -> tables.Table:
    """The paper's figures and the same quantities of this report; only a head where it has none of the arms."""
    name = tables.headline(report)
    rows = [["what", "the paper", "here (95 %)"]]
    found = [arm for arm in STUDENTS if arm in report["rgr"]]
    for arm in found:
        paper = f"{RECOVERED} at best" if arm == found[0] else "-"
        rows.append([f"RGR, {STUDENTS[arm]}", paper, tables.rgr(report["rgr"][arm][name])])
    ledger = report["ledger"]
    if "w2sr_p" in ledger["ratios"]:
        # Of the students of one process the first compiles for all, so only without it a ratio is a student's own.
        times = tables.ratio(ledger, "w2sr_p", "training_without_compilation")
        rows.append(["RL's training time over W2SR-P's, without compilation", f"{TIMES_FASTER}x", times])
    if (smaller := times_smaller(report)) is not None:
        rows.append(["student's parameters over the teacher's", f"{TIMES_SMALLER}x", f"{smaller:.1f}x"])
    if (uplift := relative(report, "w2sr", report["base"], name)) is not None:
        rows.append(["W2SR above its base, of the base's Pass@1", UPLIFT, f"{100 * uplift:.1f} %"])
    if (behind := relative(report, "teacher", "w2sr", name)) is not None:
        rows.append(["teacher below W2SR, of W2SR's Pass@1", WEAKER, f"{-100 * behind:.1f} %"])
    if found:
        rows.append(["average Pass@1, base", MATH_7B["base"], tables.pass_at_1(report["arms"][report["base"]][name])])
        if "w2sr_n" in found:
            rows.append(["average Pass@1, W2SR-N", MATH_7B["w2sr_n"], tables.pass_at_1(report["arms"]["w2sr_n"][name])])
    return rows


def times_smaller(report: Report) -> float | None:
    """The student's parameters over those of W2SR's teacher; None where one is not known."""
    teacher, student = (report.get("teachers", {}).get(arm, {}).get("parameters") for arm in ("w2sr", report["base"]))
    return student / teacher if teacher and student else None


def relative(report: Report, arm: str, other: str, benchmark: str) -> float | None:
    """How far an arm's Pass@1 is above another's, as a share of the latter; None where they are not compared."""
    rows = {name: row[benchmark] for name, row in report["arms"].items() if name not in report["baselines"]}
    if arm not in rows or other not in rows or not rows[other]["pass_at_1"]:
        return None
    return rows[arm]["pass_at_1"] / rows[other]["pass_at_1"] - 1
