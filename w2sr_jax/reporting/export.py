"""A page written beside its tables: report.html, tables/NAME.csv and tables/NAME.tex."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core.files import write_text
from w2sr_jax.reporting.html import Note, Rows, Section, Table, page, walk

LIMIT_BYTES = 5 * 2**20  # a page that a person opens from a mail
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "…": r"\ldots{}",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "ρ": r"$\rho$",
}
_FIGURE = r"[+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?"
# Our own cells that begin with a sign: "-", "-3.1 %", "-0.14 [-0.20, -0.08] for free".
_NUMBER = re.compile(rf"-|{_FIGURE}(?: %)?(?: \[{_FIGURE}, {_FIGURE}\])?(?: for free|, not shown)?")


def write_page(
    workdir: Path, title: str, sections: Sequence[Section], about: str = "", foot: str = "", limit: int = LIMIT_BYTES
) -> str:
    """Writes report.html and its tables.

    Optional sections are left out, the last ones first, while the page would have more than `limit` bytes; a note
    says so. What must stay is written however large it is.

    Returns:
        The page.
    """
    left: list[str] = []
    found = page(title, sections, about, foot)
    while len(found.encode()) > limit and (optional := _optional(sections)):
        left.append(optional[-1].title)
        sections = _without(sections, optional[-1])
        found = page(title, _noted(sections, left, limit), about, foot)
    if left:
        logging.warning("%s: %s", workdir / "report.html", _left_out(left, limit))
    if len(found.encode()) > limit:
        logging.warning("%s: %.1f MiB, more than the %.1f wanted", workdir, len(found) / 2**20, limit / 2**20)
    for table in (part for part in walk(sections) if isinstance(part, Table) and part.name):
        write_text(workdir / "tables" / f"{table.name}.csv", as_csv(table.rows))
        write_text(workdir / "tables" / f"{table.name}.tex", as_latex(table))
    write_text(workdir / "report.html", found)
    return found


def _optional(sections: Sequence[Section]) -> list[Section]:
    return [part for part in walk(sections) if isinstance(part, Section) and part.optional]


def _without(parts: Sequence[Any], one: Any) -> list[Any]:
    return [
        dataclasses.replace(part, parts=_without(part.parts, one)) if isinstance(part, Section) else part
        for part in parts
        if part is not one
    ]


def _noted(sections: Sequence[Section], left: list[str], limit: int) -> list[Section]:
    return [dataclasses.replace(sections[0], parts=[Note(_left_out(left, limit)), *sections[0].parts]), *sections[1:]]


def _left_out(left: list[str], limit: int) -> str:
    names = ", ".join(dict.fromkeys(left))
    return f"Left out to keep the page below {limit / 2**20:.3g} MiB: {names} ({len(left)} in all)."


def as_csv(rows: Rows) -> str:
    """Comma-separated, quoted where needed. A cell that a spreadsheet would take for a formula begins with a quote."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_harmless(cell) for cell in row] for row in rows])
    return text.getvalue()


def _harmless(cell: str) -> str:
    formula = cell.startswith(("=", "@", "\t", "\r")) or (cell.startswith(("+", "-")) and not _NUMBER.fullmatch(cell))
    return f"'{cell}" if formula else cell


def as_latex(table: Table) -> str:
    """A tabular in the manner of booktabs, to be put between \\begin{table} and a caption."""
    head, *rows = ([escape_latex(cell) for cell in row] for row in table.rows)
    text = [i < table.text_columns or i == table.badge_column for i in range(len(head))]
    columns = "".join("l" if one else "r" for one in text)
    lines = [" & ".join(row) + r" \\" for row in rows]
    caption = f"% {' '.join(table.caption.split())}\n" if table.caption else ""
    return (
        f"% \\usepackage{{booktabs}}\n{caption}\\begin{{tabular}}{{{columns}}}\n\\toprule\n{' & '.join(head)} \\\\\n"
        "\\midrule\n" + "\n".join(lines) + "\n\\bottomrule\n\\end{tabular}\n"
    )


def escape_latex(text: str) -> str:
    """Text as LaTeX shows it; control characters are blanks, and a leading [ is no option of the line before."""
    shown = "".join(_TEX.get(char, char if char.isprintable() else " ") for char in text)
    return f"{{}}{shown}" if shown.startswith(("[", "*")) else shown
