"""Figures as SVG text to stand inside a page: no file, no script, no font beside it; light or dark as the page is.

matplotlib draws them in the light colours of style.PALETTE, and the markup gets the page's variables in their place.
All have one width, small enough that their text stays readable on a phone; marks (bars, points, lines of data) are
named, so that a reader sees their value when pointing at them and a test can count them.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from w2sr_jax.reporting.style import PALETTE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 440  # units of the viewBox; text of 13 units is 10 px wide enough at a phone's 340 px
LIGHT = {name: pair[0] for name, pair in PALETTE.items()}
SERIES = ("student", "free", "green", "purple", "ceiling", "other", "base", "ink")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
SHAPES = ("o", "s", "^", "D", "v", "P")
NAME_CHARACTERS = 22
TWO_COLUMNS = 19  # characters of a legend's longest name up to which two stand side by side
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and a tenth of the size
    "text.parse_math": False,  # arm names are not ours: a dollar sign is a dollar sign
    "font.size": 13.5,
    "axes.titlesize": 13.5,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "legend.fontsize": 13,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.edgecolor": LIGHT["line"],
    "axes.facecolor": "none",
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.labelcolor": LIGHT["ink"],
}
HALO = {"facecolor": LIGHT["card"], "edgecolor": "none", "pad": 0.6}  # keeps text readable over lines


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval; `colour` is a name of style.PALETTE."""

    name: str
    value: float
    low: float
    high: float
    colour: str


class Drawing:
    """One figure: its axes, and the marks that were put on them."""

    def __init__(self, height: float):
        from matplotlib.figure import Figure  # pyplot would keep every figure alive and ask for a display

        self.figure: Figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        self.axes: Axes = self.figure.add_subplot()
        self._marks: dict[str, str] = {}  # gid -> what it is

    def mark(self, artist: Artist, text: str) -> None:
        """Names a mark by what it stands for; that is shown when it is pointed at."""
        gid = f"mark{len(self._marks)}"
        artist.set_gid(gid)
        self._marks[gid] = text

    def bars(
        self,
        rows: Sequence[Bar],
        xlabel: str,
        number: Callable[[float], str],
        shown: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        """Horizontal bars with their intervals and values, the first on top.

        Args:
            shown: what goes beyond is cut off there, with its numbers as they are.
        """
        axes = self.axes

        def inside(value: float) -> float:
            return min(max(value, shown[0]), shown[1])

        ends = [0.0, *(inside(end) for row in rows for end in (row.low, row.high, row.value))]
        span = (max(ends) - min(ends)) or 1.0
        for y, row in enumerate(rows):
            artist = axes.barh(y, inside(row.value), height=0.62, color=LIGHT[row.colour])[0]
            self.mark(artist, f"{row.name}: {number(row.value)} [{number(row.low)}, {number(row.high)}]")
            axes.plot([inside(row.low), inside(row.high)], [y, y], color=LIGHT["ink"], lw=1.4, solid_capstyle="butt")
            for end in (end for end in (row.low, row.high) if end == inside(end)):
                axes.plot([end, end], [y - 0.14, y + 0.14], color=LIGHT["ink"], lw=1.4)
            right = inside(max(row.value, row.high, 0.0))
            axes.text(right + 0.02 * span, y, number(row.value), va="center", fontsize=13, fontweight="bold",
                      bbox=HALO, zorder=5)  # fmt: skip
        axes.set_xlim(min(0.0, *ends) - (0.03 * span if min(ends) < 0 else 0), max(ends) + 0.17 * span)
        self.name_rows([row.name for row in rows])
        axes.set_xlabel(xlabel)

    def name_rows(self, names: Sequence[str]) -> None:
        """The y axis as a list of names, the first on top."""
        axes = self.axes
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)

    def legend(self) -> None:
        """Above the axes, where it covers nothing; the figure grows by it."""
        handles, labels = self.axes.get_legend_handles_labels()
        if len(handles) > 1:
            columns = 2 if max(map(len, labels)) <= TWO_COLUMNS else 1
            width, height = self.figure.get_size_inches()
            self.figure.set_size_inches(width, height + 19 / 72 * -(-len(handles) // columns))
            self.figure.legend(
                handles, labels, loc="outside upper left", ncols=columns, handlelength=2.2, columnspacing=1.2
            )

    def svg(self, name: str, title: str, about: str = "") -> str:
        """The <svg> element, with ids of its own so that several can share a page.

        Args:
            name: letters, digits and hyphens; the prefix of every id.
            title, about: what it shows, for who cannot see it.
        """
        import matplotlib as mpl

        text = io.StringIO()
        with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
            self.figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        markup = text.getvalue()
        markup = markup[markup.index("<svg") :]
        markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
        for gid, what in self._marks.items():
            markup = markup.replace(f'<g id="{gid}">', f'<g class="mark"><title>{escape(what)}</title>', 1)
        # In tags alone: a name between them may look like an id or a colour.
        markup = re.sub(r"<[^>]+>", lambda tag: _own(tag[0], name), markup)
        markup = re.sub(r' (?:width|height)="[\d.]+pt"', "", markup, count=2)
        markup = re.sub(r"[ \t]*\n[ \t]*", "\n", markup)
        label = escape(f"{title} {about}".strip(), quote=True)
        opening = f'<svg role="img" aria-label="{label}" data-marks="{len(self._marks)}"'
        return markup.replace("<svg", opening, 1)


_NAMES = {value: name for name, value in LIGHT.items()}
_VALUES = re.compile("|".join(map(re.escape, _NAMES)), re.IGNORECASE)


def _own(tag: str, name: str) -> str:
    """A tag whose ids, and references to them, begin with a name, and whose colours are the page's."""
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)
    return _VALUES.sub(lambda found: f"var(--{_NAMES[found[0].lower()]})", tag)


@contextmanager
def drawn() -> Iterator[None]:
    """Figures are made inside of this, so that they have the page's style."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def bars_height(count: int) -> float:
    return 62 + 25 * count


def short(name: str, characters: int = NAME_CHARACTERS) -> str:
    """A name that fits beside its bar. A legend drops labels that begin with an underscore."""
    name = name if len(name) <= characters else f"{name[: characters - 1]}…"
    return f" {name}" if name.startswith("_") else name


def plain_number(value: float, _: float = 0.0) -> str:
    """Ticks of a logarithmic axis without mathematical markup: only 1, 2 and 5 times a power of ten."""
    if f"{value:e}"[0] not in "125":
        return ""
    for power, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= power:
            return f"{value / (1e3 if unit == 'k' else power):g}{unit}"
    return f"{value:,.6g}"


def log_axis(axis: Any, low: float, high: float) -> None:
    """A logarithmic axis with plain numbers, few enough not to overlap."""
    wide = high / low >= 30
    axis.set_major_formatter(plain_number)
    axis.set_minor_formatter("" if wide else plain_number)
    axis.set_tick_params(which="both", length=3.5, pad=4)  # minor labels on one line with the others
