"""The trace lab on a page: what the traces of each set are like, and how that goes with what students gained."""

from __future__ import annotations

from typing import Any

from w2sr_jax.reporting.html import Section

Report = dict[str, Any]


def sections(report: Report, prefix: str = "") -> list[Section]:
    """The section of a report that has a trace lab."""
    return []
