"""The report's figures, as SVG text to stand inside a page: no file, no script, no font beside it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from w2sr_jax.reporting.routes import Curve
from w2sr_jax.reporting.tables import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Report = dict[str, Any]

INK, MUTED, GRID = "#1c2733", "#66727f", "#e3e7eb"
BASE, FREE, STUDENT, OTHER, CEILING = "#8b98a5", "#c9a227", "#2a6f97", "#a5c4d4", "#c8553d"
LINES = ("#2a6f97", "#5b8e7d", "#c9a227", "#7d5ba6", "#8b98a5", "#1c2733", "#d98e73")
HALO = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # keeps text readable over lines
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and a tenth of the size
    "text.parse_math": False,  # arm names are not ours: a dollar sign is a dollar sign
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def colour(report: Report, arm: str) -> str:
    """Base, free baseline, ceiling, student (has a route of its own), any other model (a teacher)."""
    if arm == report["base"]:
        return BASE
    if arm == report["ceiling"]:
        return CEILING
    if arm in report["baselines"]:
        return FREE
    routes = report["ledger"]["routes"]
    return STUDENT if not routes or arm in routes else OTHER


def arms_plot(report: Report, benchmark: str, width: float = 9.2) -> Figure:
    """Pass@1 of every arm with its interval, and dashed lines at the base, the ceiling and the free baselines."""
    rows = {arm: row[benchmark] for arm, row in report["arms"].items()}
    figure, axes = _bars(len(rows), width)
    for y, (arm, row) in enumerate(rows.items()):
        value, (low, high) = 100 * row["pass_at_1"], (100 * end for end in row["interval"])
        axes.barh(y, value, height=0.62, color=colour(report, arm))
        _whisker(axes, y, low, high)
        axes.text(max(value, high) + 1.2, y, f"{value:.1f}", va="center", fontweight="bold", fontsize=9.5, bbox=HALO)
    for arm in [a for a in (report["base"], *report["baselines"], report["ceiling"]) if a is not None]:
        axes.axvline(100 * rows[arm]["pass_at_1"], color=colour(report, arm), ls=(0, (4, 3)), lw=1.1, zorder=0.5)
    top = max(100 * max(row["interval"][1], row["pass_at_1"]) for row in rows.values())
    axes.set_xlim(0, max(5.0, 1.1 * top + 3))
    axes.set_xlabel(f"{benchmark}: Pass@1, %, with 95 % interval")
    _name_bars(axes, list(rows))
    return figure


def rgr_plot(report: Report, benchmark: str) -> Figure | None:
    """RGR bars of the students and the free baselines; None where RGR is undefined."""
    cells = {arm: rows[benchmark]["rgr"] for arm, rows in report["baselines"].items()}
    cells |= {arm: rows[benchmark] for arm, rows in report["rgr"].items() if colour(report, arm) != OTHER}
    cells = {arm: cell for arm, cell in cells.items() if "value" in cell}
    if not cells:
        return None
    figure, axes = _bars(len(cells))
    ends = [0.0, 1.0]
    for y, (arm, cell) in enumerate(cells.items()):
        axes.barh(y, cell["value"], height=0.62, color=colour(report, arm))
        _whisker(axes, y, *cell["interval"])
        ends += [cell["value"], *cell["interval"]]
        axes.text(max(0.0, cell["value"], cell["interval"][1]) + 0.02, y, f"{cell['value']:.2f}", va="center",
                  fontweight="bold", fontsize=9.5, bbox=HALO)  # fmt: skip
    axes.axvline(0, color=BASE, lw=1.2)
    axes.axvline(1, color=CEILING, ls=(0, (4, 3)), lw=1.2)
    # An interval of a small gap can be wide; the bars must stay readable.
    axes.set_xlim(max(-1.5, min(ends) - 0.08), min(2.5, max(ends) + 0.15))
    axes.set_xlabel(f"{benchmark}: reasoning gap recovered (0 = base, 1 = GRPO ceiling), with 95 % interval")
    _name_bars(axes, list(cells))
    return figure


def cost_plot(report: Report, benchmark: str) -> Figure | None:
    """Pass@1 against the device-seconds of each route; a thin line leads to the cost with the teacher charged."""
    routes = {a: r for a, r in report["ledger"]["routes"].items() if r["total"]["device_seconds"] > 0}
    if not routes:
        return None
    figure, axes = _figure(3.6)
    teacher = report["ledger"]["teacher"]
    for arm, route in routes.items():
        row, spent = report["arms"][arm][benchmark], route["total"]["device_seconds"]
        value, tint = 100 * row["pass_at_1"], colour(report, arm)
        axes.plot([spent, spent], [100 * end for end in row["interval"]], color=tint, lw=1.4, alpha=0.55)
        if teacher and arm != report["ceiling"]:
            charged = spent + teacher["total"]["device_seconds"]
            axes.plot([spent, charged], [value, value], color=tint, lw=1.1, ls=":")
            axes.plot(charged, value, "o", ms=5, color="white", mec=tint, mew=1.2)
        axes.plot(spent, value, "o", ms=8, color=tint, mec="white", mew=1.2)
    _label_points(axes, [
        (routes[arm]["total"]["device_seconds"], 100 * report["arms"][arm][benchmark]["pass_at_1"], arm)
        for arm in routes
    ])  # fmt: skip
    for arm in (report["base"], *report["baselines"]):
        value = 100 * report["arms"][arm][benchmark]["pass_at_1"]
        axes.axhline(value, color=colour(report, arm), ls=(0, (4, 3)), lw=1.1, zorder=0.5)
        axes.annotate(arm, (1.0, value), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", fontsize=8.5, color=MUTED)  # fmt: skip
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = low / (high / low) ** 0.35 / 1.2, high * 1.3  # room for the names, which stand left of the points
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(_plain_number)
    axes.xaxis.set_minor_formatter(_plain_number if high / low < 100 else "")
    charged = "; dotted: with the making of the teacher" if teacher else ""
    axes.set_xlabel(f"device-seconds of the route{charged}")
    axes.set_ylabel(f"{benchmark}: Pass@1, %")
    return figure


def curves_plot(report: Report, title: str, curves: dict[str, Curve]) -> Figure:
    """One metric over the training steps, a line per arm; the ceiling has its colour of the other plots."""
    figure, axes = _figure(2.7, width=4.6)
    for number, (arm, points) in enumerate(curves.items()):
        tint = CEILING if arm == report["ceiling"] else LINES[number % len(LINES)]
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) < 25 else None
        axes.plot(steps, values, color=tint, lw=1.6, marker=marker, ms=3, label=_plain_label(arm))
    axes.set_xlabel("step")
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    if len(curves) > 1:
        axes.legend(fontsize=8, labelcolor=MUTED)
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element, with ids of its own so that several can share a page.

    Args:
        name: letters and digits; the prefix of every id.
    """
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    markup = text.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
    markup = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', markup)
    markup = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', markup)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", markup)


def all_plots(report: Report, curves: dict[str, dict[str, Curve]]) -> dict[str, list[str]]:
    """{section: SVG texts}: "arms", "rgr", "cost" and "curves"; a section without data is an empty list.

    Args:
        curves: {title: {arm: points}}.
    """
    import matplotlib as mpl

    name = headline(report)
    with mpl.rc_context(STYLE):
        arms = [arms_plot(report, name)]
        others = [b for b in report["arms"][report["base"]] if b not in (name, "average")]
        arms += [arms_plot(report, benchmark, width=5.2) for benchmark in others]
        figures: dict[str, Sequence[Figure | None]] = {
            "arms": arms,
            "rgr": [rgr_plot(report, name)],
            "cost": [cost_plot(report, name)],
            "curves": [curves_plot(report, title, by_arm) for title, by_arm in curves.items()],
        }
    return {
        section: [svg(figure, f"{section}{i}") for i, figure in enumerate(found) if figure is not None]
        for section, found in figures.items()
    }


def _figure(height: float, width: float = 9.2) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # pyplot would keep every figure alive and ask for a display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _bars(count: int, width: float = 9.2) -> tuple[Figure, Axes]:
    return _figure(0.75 + 0.36 * count, width)


def _name_bars(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [name if len(name) <= 40 else f"{name[:39]}…" for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _whisker(axes: Axes, y: float, low: float, high: float) -> None:
    axes.plot([low, high], [y, y], color=INK, lw=1.3, alpha=0.75, solid_capstyle="butt")
    for end in (low, high):
        axes.plot([end, end], [y - 0.12, y + 0.12], color=INK, lw=1.3, alpha=0.75)


def _label_points(axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Names left of the points of a logarithmic x axis, pushed up where they would overlap."""
    low, high = axes.get_ylim()
    gap, placed = 0.055 * (high - low), list[tuple[float, float]]()
    for x, y, name in sorted(points, key=lambda p: p[1]):
        at = max([y, *(other + gap for near, other in placed if 0.4 < near / x < 2.5)])
        axes.annotate(name, (x, at), (-9, 0), textcoords="offset points", ha="right", va="center", fontsize=9,
                      bbox=HALO)  # fmt: skip
        placed.append((x, at))


def _plain_number(value: float, _: float) -> str:
    """Ticks of a logarithmic axis without mathematical markup: only 1, 2 and 5 times a power of ten."""
    return f"{value:,.6g}" if f"{value:e}"[0] in "125" else ""


def _plain_label(name: str) -> str:
    """A legend drops labels that begin with an underscore."""
    return name if not name.startswith("_") else f" {name}"
