"""Several reports on one page: a section each, and before them which claims hold, fail, or are not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from w2sr_jax.core.files import read_json
from w2sr_jax.core.records import RecordError
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.reporting import page, plots, tables
from w2sr_jax.reporting.figures import drawn
from w2sr_jax.reporting.html import Section, Table, Text

Report = dict[str, Any]
VERDICTS = (True, False, "not shown")
HOW = "A claim holds or fails when the 95 % interval of the difference leaves 0 out; else it is not shown."


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
        counts = [found.count(verdict) for verdict in VERDICTS]
        table.append([section["title"], str(len(found)), *map(str, counts)])
    return table


def text(book: Report) -> str:
    """report.md, which is also what a run prints."""
    parts = [f"# {book['title']}", f"commit {(book['commit'] or 'unknown')[:10]}", HOW]
    parts.append(tables.markdown_table(verdicts_table(book)))
    parts += [f"#{tables.summary_text(section)}" for section in book["sections"]]
    return "\n\n".join(parts) + "\n"


def sections(book: Report) -> list[Section]:
    """The sections of its page."""
    spoken = []
    for section in book["sections"]:
        if section["claims"]:
            colon = "" if section["title"].endswith("?") else ":"
            spoken.append(Text(f"{section['title']}{colon} {page.in_words(section)}"))
    answers = Section("Answers", [Table(verdicts_table(book), "answers"), *spoken], HOW)
    reports = [page.in_book(section, f"q{i}") for i, section in enumerate(book["sections"], 1)]
    return [answers, *teacher_sizes(book), *_beside_paper(book), *reports]


def teacher_sizes(book: Report) -> list[Section]:
    """One figure of the W2SR students of all sections, where their teachers are of several sizes."""
    points, names = [], []
    for section in book["sections"]:
        teacher = section.get("teachers", {}).get("w2sr", {})
        if teacher.get("parameters"):
            names.append(tables.headline(section))
            points.append((teacher["parameters"], section["arms"]["w2sr"][names[-1]], section["title"], "student"))
    with drawn():
        figure = plots.teacher_sizes(points, ", ".join(dict.fromkeys(names)), "teachers")
    return [] if figure is None else [Section("Teacher size", [figure], "The W2SR student of each section.")]


def _beside_paper(book: Report) -> list[Section]:
    found = (section for report in book["sections"] for section in page.beside_paper(report))
    return [section for section in [next(found, None)] if section is not None]
