"""Several reports on one page: a section each, and before them which claims hold, fail, or are not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from w2sr_jax.core.records import RecordError, read_json
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.reporting import html, plots, tables

Report = dict[str, Any]
VERDICTS = (True, False, "not shown")


def load(config: ReportConfig) -> Report:
    """report.json of the whole: the sections' reports, in order.

    Raises:
        RecordError: a section is no report of an experiment or of its seeds.
    """
    sections = []
    for title, workdir in config.sections.items():
        path = Path(workdir) / "report.json"
        report = read_json(path)
        if not isinstance(report, dict) or report.get("kind") not in ("experiment", "summary"):
            raise RecordError(f"{path}: kind: expected the report of an experiment or of its seeds")
        sections.append(report | {"title": title})
    return {"kind": "book", "title": config.title, "sections": sections}


def verdicts_table(book: Report) -> tables.Table:
    """How many claims of each section hold, fail, or are not shown."""
    table = [["question", "claims", "hold", "FAIL", "not shown"]]
    for section in book["sections"]:
        found = [claim["holds"] for claim in section["claims"].values()]
        # `is`: True and 1 are equal, and "not shown" is neither.
        counts = [sum(one is verdict or one == verdict for one in found) for verdict in VERDICTS]
        table.append([section["title"], str(len(found)), *map(str, counts)])
    return table


def text(book: Report) -> str:
    """report.md, which is also what a run prints."""
    how = "A claim holds or fails when the 95 % interval of the difference leaves 0 out; else it is not shown."
    parts = [f"# {book['title']}", f"commit {(book['commit'] or 'unknown')[:10]}", how]
    parts.append(tables.markdown_table(verdicts_table(book)))
    parts += [f"#{tables.summary_text(section)}" for section in book["sections"]]
    return "\n\n".join(parts) + "\n"


def page(book: Report) -> str:
    """report.html."""
    figures = [plots.all_plots(section, {}) for section in book["sections"]]
    colours = [{arm: plots.colour(section, arm) for arm in section["arms"]} for section in book["sections"]]
    return html.render_book(book, verdicts_table(book), figures, colours)
