"""A page made of sections: one file with its style and figures inside, readable offline and safe to open.

Names, claims and above all responses were written by others: every string goes through `escape`, and the page forbids
scripts and any request (Content-Security-Policy), so that a response cannot do anything but be read. Light or dark is
chosen by three radio buttons that the style sheet asks for; nothing is stored.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from w2sr_jax.reporting.style import POLICY, css

Rows = Sequence[Sequence[str]]
BADGES = {"holds": "good", "right": "good", "FAILS": "bad", "wrong": "bad", "not shown": "unsure"}
SHORT_CELL, LONG_CELL = 24, 45  # characters up to which a text cell is not broken, and from which it is given more room


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """A paragraph that must not be overlooked."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table; with a name it is also written as tables/NAME.csv and .tex, and the page links to them."""

    rows: Rows  # the first one is the head
    name: str = ""  # letters, digits, hyphens
    caption: str = ""
    text_columns: int = 1  # so many columns, from the left, are text; the others are numbers
    badge_column: int | None = None  # whose cells begin with one of BADGES
    dots: Mapping[str, str] | None = None  # first cell -> name of a colour of style.PALETTE, shown before it


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """An inline SVG (reporting/figures.py makes them) with what it shows in plain words."""

    svg: str
    title: str
    about: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Tiles:
    """Numbers to take away: (what, value, detail)."""

    tiles: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A response to look at, closed until it is opened."""

    badge: str
    name: str
    about: str
    text: str
    below: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Folded:
    """Parts that are closed until they are opened."""

    summary: str
    parts: Sequence[Part]


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """Parts under a heading with an anchor. Sections inside a section have smaller headings.

    An optional one may be left out where the page would be too large (reporting/export.py).
    """

    title: str
    parts: Sequence[Part | Section]
    about: str = ""
    optional: bool = False


Part = Text | Note | Table | Figure | Tiles | Sample | Folded


def page(title: str, sections: Sequence[Section], about: str = "", foot: str = "") -> str:
    """The whole page.

    Args:
        about: a line under the title.
        foot: a line at the end, as where it comes from.
    """
    anchors = Anchors()
    body = "".join(_section(section, anchors, 2) for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<style>{css()}</style></head>\n<body><div class="frame">\n'
        f"<header><div><h1>{escape(title)}</h1>{_about(about)}</div>{_theme()}</header>\n"
        f"{anchors.navigation()}\n<main>\n{body}\n</main>\n<footer>{escape(foot)}</footer></div></body></html>\n"
    )


def walk(parts: Iterable[Part | Section]) -> Iterator[Part | Section]:
    """All sections and parts, in the order of the page."""
    for part in parts:
        yield part
        if isinstance(part, Section | Folded):
            yield from walk(part.parts)


class Anchors:
    """An id for each heading, made of its title, and the list that leads to them."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str, str]] = []  # level, id, title

    def add(self, level: int, title: str) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "section"
        taken = {name for _, name, _ in self._found}
        name = next(n for n in (slug, *(f"{slug}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        self._found.append((level, name, title))
        return name

    def navigation(self) -> str:
        """The titles of both levels; those of the second only where they are few."""
        deep = len(self._found) <= 30
        groups: list[tuple[str, list[str]]] = []
        for level, name, title in self._found:
            link = f'<a href="#{name}">{escape(title)}</a>'
            if level == 2:
                groups.append((link, []))
            elif level == 3 and deep:
                groups[-1][1].append(f"<li>{link}</li>")
        listed = "".join(
            f"<li>{link}{f'<ul>{chr(10).join(below)}</ul>' if below else ''}</li>" for link, below in groups
        )
        return (
            '<nav aria-label="Contents"><input type="checkbox" id="contents"><label for="contents">Contents</label>'
            f"<ul>{listed}</ul></nav>"
        )


def _theme() -> str:
    buttons = "".join(
        f'<input type="radio" name="theme" id="theme-{name}"{" checked" if name == "auto" else ""}>'
        f'<label for="theme-{name}">{name}</label>'
        for name in ("auto", "light", "dark")
    )
    return f'<fieldset class="theme"><legend>Colours</legend>{buttons}</fieldset>'


def _section(section: Section, anchors: Anchors, level: int) -> str:
    name = anchors.add(level, section.title)
    tag = f"h{min(level, 4)}"
    head = f'<{tag} id="{name}"><a href="#{name}">{escape(section.title)}</a></{tag}>{_about(section.about)}'
    pieces: list[str] = []
    own: list[Part] = []

    def flush() -> None:
        if own:
            pieces.append(_parts(own))
            own.clear()

    for part in section.parts:
        if isinstance(part, Section):
            flush()
            pieces.append(_section(part, anchors, level + 1))
        else:
            own.append(part)
    flush()
    nested = any(isinstance(part, Section) for part in section.parts)
    inner = head + "".join(pieces)
    return f"<section>{inner}</section>\n" if nested else f'<section class="card">{inner}</section>\n'


def _parts(parts: Sequence[Part]) -> str:
    """Parts in their order, figures that follow each other side by side."""
    pieces: list[str] = []
    for part in parts:
        markup = _part(part)
        if isinstance(part, Figure):
            if pieces and pieces[-1].startswith('<div class="figures">'):
                pieces[-1] = pieces[-1].removesuffix("</div>") + markup + "</div>"
                continue
            markup = f'<div class="figures">{markup}</div>'
        pieces.append(markup)
    return "".join(pieces)


def _part(part: Part) -> str:
    match part:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Note(text):
            return f'<p class="note">{escape(text)}</p>'
        case Table():
            return _table(part)
        case Figure(svg, title, about):
            return f"<figure>{svg}<figcaption><b>{escape(title)}</b> {escape(about)}</figcaption></figure>"
        case Tiles(tiles):
            return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"
        case Sample(badge, name, about, text, below):
            return (
                f"<details><summary>{_badge(badge)} <b>{escape(name)}</b> "
                f'<span class="about">{escape(about)}</span></summary><pre>{escape(text)}</pre>'
                f"<p>{escape(below)}</p></details>"
            )
        case Folded(summary, parts):
            return f"<details><summary>{escape(summary)}</summary>{_parts(parts)}</details>"


def _tile(what: str, value: str, detail: str) -> str:
    return f'<div class="tile"><span>{escape(what)}</span><b>{escape(value)}</b><span>{escape(detail)}</span></div>'


def _about(text: str) -> str:
    return f'<p class="about">{escape(text)}</p>' if text else ""


def _badge(text: str) -> str:
    kind = next((css for word, css in BADGES.items() if text.startswith(word)), "unsure")
    return f'<span class="badge {kind}">{escape(text)}</span>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"{_left(i, table)}>{escape(cell)}</th>' for i, cell in enumerate(table.rows[0]))
    rows = []
    for row in table.rows[1:]:
        colour = table.dots.get(row[0]) if table.dots else None
        dot = f'<i class="dot" style="background:var(--{colour})"></i>' if colour else ""
        cells = [_badge(cell) if i == table.badge_column else escape(cell) for i, cell in enumerate(row)]
        cells[0] = dot + cells[0]
        rows.append(
            "<tr>" + "".join(f"<td{_left(i, table, row[i])}>{cell}</td>" for i, cell in enumerate(cells)) + "</tr>"
        )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    label = escape(table.caption or table.name or "table", quote=True)
    links = ""
    if table.name:
        files = ((f"tables/{table.name}.csv", "CSV"), (f"tables/{table.name}.tex", "LaTeX"))
        links = " &middot; ".join(f'<a href="{escape(path)}">{what}</a>' for path, what in files)
        links = f'<p class="links">This table as {links}</p>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{links}"
    )


def _left(column: int, table: Table, cell: str = "") -> str:
    if column >= table.text_columns and column != table.badge_column:
        return ""
    return f' class="t{" long" if len(cell) > LONG_CELL else "" if len(cell) > SHORT_CELL else " short"}"'
