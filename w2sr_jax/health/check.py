"""What one check found, the same of many processes put together, and the table of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

PASS, WARN, FAIL = "pass", "warn", "fail"
WORSE = (PASS, WARN, FAIL)


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    name: str
    status: str  # of WORSE
    found: str
    remedy: str = ""  # what to do, where it is not a pass

    def to_json(self) -> dict[str, str]:
        return dataclasses.asdict(self)


def joined(of_processes: Sequence[Check], who: Sequence[str]) -> Check:
    """One check that every process made for itself: the worst of them, with the processes that it is true of.

    Args:
        of_processes: in their order, with one name.
        who: the processes, as messages name them.
    """
    worst = max(of_processes, key=lambda check: WORSE.index(check.status))
    if len(of_processes) == 1:
        return worst
    same = [place for place, check in enumerate(of_processes) if check.status == worst.status]
    if len(same) == len(of_processes):
        return dataclasses.replace(worst, found=f"{who[same[0]]}: {worst.found}; {len(same) - 1} more alike")
    others = f" and {len(same) - 1} more" if len(same) > 1 else ""
    return dataclasses.replace(worst, found=f"{who[same[0]]}{others}: {worst.found}")


def difference(values: Sequence[dict[str, str]], who: Sequence[str]) -> str:
    """The keys in which a process differs from process 0, in words; empty where all are alike."""
    found = []
    for key in sorted({key for value in values for key in value}):
        first = values[0].get(key, "(not set)")
        for place, value in enumerate(values):
            if (here := value.get(key, "(not set)")) != first:
                found.append(f"{who[place]} has {key} {here}, {who[0]} has {first}")
                break
    return "; ".join(found)


def table(checks: Sequence[Check]) -> str:
    """The checks for people to read, the remedies below the lines that need one."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(
            f"{check.status.upper() if check.status != PASS else 'pass'}  {check.name:<{width}}  {check.found}"
        )
        if check.remedy and check.status != PASS:
            lines.append(f"      {'':<{width}}  -> {check.remedy}")
    counts = [sum(check.status == status for check in checks) for status in WORSE]
    lines.append(f"{counts[0]} passed, {counts[1]} warnings, {counts[2]} failed")
    return "\n".join(lines)
