"""The report's figures: every arm, what traces teach, RGR, accuracy against teacher size and cost, training curves."""

from __future__ import annotations

from typing import Any

from w2sr_jax.reporting.figures import (
    DASHES,
    LIGHT,
    SERIES,
    SHAPES,
    Bar,
    Drawing,
    bars_height,
    drawn,
    log_axis,
    short,
)
from w2sr_jax.reporting.html import Figure
from w2sr_jax.reporting.tables import benchmarks, headline, is_summary, quantity

Report = dict[str, Any]
VARIANTS = {"w2sr": "all traces", "w2sr_p": "correct traces", "w2sr_n": "incorrect traces"}
RGR_SHOWN = (-2.0, 3.0)  # an interval of a small gap can be wide; the bars must stay readable
MOST_CURVES = 8  # lines that can still be told apart


def colour(report: Report, arm: str) -> str:
    """Base, free baseline, ceiling, student (has a route of its own), any other model (a teacher)."""
    if arm == report["base"]:
        return "base"
    if arm == report["ceiling"]:
        return "ceiling"
    if arm in report["baselines"]:
        return "free"
    routes = report["ledger"]["routes"]
    return "student" if arm in report["rgr"] and (not routes or arm in routes) else "other"


def percent(value: float) -> str:
    return f"{value:.1f}"


def spread(report: Report) -> str:
    return "95 % interval over seeds" if is_summary(report) else "95 % interval"


def arms_figure(report: Report, benchmark: str, name: str) -> Figure:
    """Pass@1 of every arm with its interval, and dashed lines at the base, the ceiling and the free baselines."""
    rows = {arm: row[benchmark] for arm, row in report["arms"].items()}
    drawing = Drawing(bars_height(len(rows)))
    drawing.bars([_bar(report, arm, arm, row) for arm, row in rows.items()], f"{benchmark}: Pass@1, %", percent)
    for arm in [a for a in (report["base"], *report["baselines"], report["ceiling"]) if a is not None]:
        value = 100 * rows[arm]["pass_at_1"]
        drawing.axes.axvline(value, color=LIGHT[colour(report, arm)], ls=(0, (4, 3)), lw=1.1, zorder=0.5)
    title = f"Every model on {benchmark}."
    about = (
        f"Greedy or sampled Pass@1 as evaluated; whiskers are the {spread(report)}. Dashed lines: base, "
        f"{'free baseline, ' if report['baselines'] else ''}ceiling."
    )
    return Figure(drawing.svg(name, title, about), title, about)


def variants_figure(report: Report, benchmark: str, name: str) -> Figure | None:
    """Students of all, of correct and of incorrect traces, between the base and the ceiling."""
    found = [arm for arm in VARIANTS if arm in report["arms"]]
    if len(found) < 2:
        return None
    ends = [arm for arm in (report["base"], "teacher", *found, report["ceiling"]) if arm in report["arms"]]
    drawing = Drawing(bars_height(len(ends)))
    names = VARIANTS | {report["base"]: "untouched", "teacher": "the teacher itself", report["ceiling"]: "after GRPO"}
    rows = {arm: report["arms"][arm][benchmark] for arm in ends}
    drawing.bars([_bar(report, arm, names[arm], row) for arm, row in rows.items()], f"{benchmark}: Pass@1, %", percent)
    title = "The student by what it learned from."
    about = f"W2SR learns from all traces, W2SR-P from correct ones, W2SR-N from incorrect ones; {spread(report)}."
    return Figure(drawing.svg(name, title, about), title, about)


def rgr_figure(report: Report, benchmark: str, name: str) -> Figure | None:
    """RGR bars of the students and the free baselines; None where RGR is undefined."""
    cells = {arm: rows[benchmark]["rgr"] for arm, rows in report["baselines"].items()}
    cells |= {arm: rows[benchmark] for arm, rows in report["rgr"].items() if colour(report, arm) != "other"}
    cells = {arm: cell for arm, cell in cells.items() if "value" in cell}
    if not cells:
        return None
    ends = {arm: cell["interval"] for arm, cell in cells.items()}
    rows = [Bar(arm, cells[arm]["value"], low, high, colour(report, arm)) for arm, (low, high) in ends.items()]
    drawing = Drawing(bars_height(len(rows)))
    drawing.bars(rows, f"{benchmark}: RGR", lambda value: f"{value:.2f}", RGR_SHOWN)
    drawing.axes.axvline(0, color=LIGHT["base"], lw=1.2)
    drawing.axes.axvline(1, color=LIGHT["ceiling"], ls=(0, (4, 3)), lw=1.2)
    low, high = drawing.axes.get_xlim()
    drawing.axes.set_xlim(low, max(high, 1.08))
    title = "Reasoning gap recovered."
    about = f"0 is the base, 1 (dashed) the GRPO ceiling; {spread(report)}."
    least, most = RGR_SHOWN
    if beyond := [row.name for row in rows if min(row.low, row.value) < least or max(row.high, row.value) > most]:
        about += f" Cut off at {least:g} and {most:g}: {', '.join(beyond)}."
    return Figure(drawing.svg(name, title, about), title, about)


def teachers_figure(report: Report, benchmark: str, name: str) -> Figure | None:
    """Pass@1 of students against the size of their teacher; None where fewer than two sizes are known."""
    points = [
        (report["teachers"][arm]["parameters"], report["arms"][arm][benchmark], arm)
        for arm in report.get("teachers", {})
        if arm in report["rgr"] and report["teachers"][arm]["parameters"]
    ]
    return teacher_sizes([(size, row, arm, colour(report, arm)) for size, row, arm in points], benchmark, name)


def teacher_sizes(points: list[tuple[float, dict[str, Any], str, str]], benchmark: str, name: str) -> Figure | None:
    """The same for any points (parameters, row, name, colour)."""
    sizes = {size for size, *_ in points}
    if len(sizes) < 2:
        return None
    drawing = Drawing(280)
    axes = drawing.axes
    beside: dict[float, int] = {}
    for number, (size, row, arm, tint) in enumerate(points):
        value, (low, high) = 100 * row["pass_at_1"], (100 * end for end in row["interval"])
        # Points of one teacher stand side by side, not on each other.
        count = sum(other == size for other, *_ in points)
        x = size * (max(sizes) / min(sizes)) ** (0.04 * (beside.get(size, 0) - (count - 1) / 2))
        beside[size] = beside.get(size, 0) + 1
        axes.plot([x, x], [low, high], color=LIGHT[tint], lw=1.5)
        (line,) = axes.plot(x, value, SHAPES[number % len(SHAPES)], ms=8, color=LIGHT[SERIES[number % len(SERIES)]],
                            mec=LIGHT["card"], label=short(arm), ls="")  # fmt: skip
        drawing.mark(line, f"{arm}: teacher of {quantity(size)} parameters, {value:.1f} [{low:.1f}, {high:.1f}]")
    axes.set_xscale("log")
    ratio = max(sizes) / min(sizes)
    axes.set_xlim(min(sizes) / ratio**0.25, max(sizes) * ratio**0.25)
    log_axis(axes.xaxis, *axes.get_xlim())
    axes.set_xlabel("parameters of the teacher")
    axes.set_ylabel("student's Pass@1, %")
    drawing.legend()
    title = f"Accuracy on {benchmark} against the size of the teacher."
    about = "One point a student, logarithmic in the teacher's parameters; points of one teacher stand side by side."
    return Figure(drawing.svg(name, title, about), title, about)


def cost_figure(report: Report, benchmark: str, name: str) -> Figure | None:
    """Pass@1 against the device-seconds of each route; hollow points have the making of the teacher charged."""
    routes = {a: r for a, r in report["ledger"]["routes"].items() if r["total"]["device_seconds"] > 0}
    if not routes:
        return None
    drawing = Drawing(280)
    axes, with_teacher = drawing.axes, report["ledger"].get("with_teacher", {})
    for number, (arm, route) in enumerate(routes.items()):
        row, spent = report["arms"][arm][benchmark], route["total"]["device_seconds"]
        value, (low, high) = 100 * row["pass_at_1"], (100 * end for end in row["interval"])
        tint = LIGHT["ceiling" if arm == report["ceiling"] else SERIES[number % 4]]
        shape = SHAPES[number % len(SHAPES)]
        axes.plot([spent, spent], [low, high], color=tint, lw=1.5, alpha=0.6)
        if (charged := with_teacher.get(arm)) is not None:
            axes.plot([spent, charged], [value, value], color=tint, lw=1.1, ls=":")
            axes.plot(charged, value, shape, ms=6, color=LIGHT["card"], mec=tint, mew=1.4)
        (point,) = axes.plot(spent, value, shape, ms=9, color=tint, mec=LIGHT["card"], label=short(arm), ls="")
        drawing.mark(point, f"{arm}: {spent:,.0f} device-seconds, {value:.1f} [{low:.1f}, {high:.1f}]")
    for arm in (report["base"], *report["baselines"]):
        axes.axhline(100 * report["arms"][arm][benchmark]["pass_at_1"], color=LIGHT[colour(report, arm)],
                     ls=(0, (4, 3)), lw=1.1, zorder=0.5)  # fmt: skip
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.2, high * 1.2)
    log_axis(axes.xaxis, *axes.get_xlim())
    axes.set_xlabel("device-seconds of the route")
    axes.set_ylabel("Pass@1, %")
    drawing.legend()
    hollow = " Hollow points, dotted: with the making of the teacher." if with_teacher else ""
    title = f"Accuracy on {benchmark} against training cost."
    about = (
        f"Logarithmic; whiskers are the {spread(report)}; dashed: {', '.join((report['base'], *report['baselines']))}."
    )
    return Figure(drawing.svg(name, title, about + hollow), title, about + hollow)


def curves_figures(report: Report, name: str) -> list[Figure]:
    """Each metric over the training steps, a line per arm."""
    return [
        _curves(report, title, curve["unit"], curve["arms"], f"{name}{i}")
        for i, (title, curve) in enumerate(report.get("curves", {}).items())
        if curve["arms"]
    ]


def _curves(report: Report, title: str, unit: str, arms: dict[str, list[list[float]]], name: str) -> Figure:
    shown = dict(list(arms.items())[:MOST_CURVES])
    drawing = Drawing(240)
    for number, (arm, points) in enumerate(shown.items()):
        tint = "ceiling" if arm == report["ceiling"] else SERIES[number % 4]
        dash = DASHES[number // 4 if arm != report["ceiling"] else 0]
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) < 25 else None
        (line,) = drawing.axes.plot(
            steps, values, color=LIGHT[tint], lw=1.7, ls=dash, marker=marker, ms=3.5, label=short(arm)
        )
        drawing.mark(line, arm)
    drawing.axes.set_xlabel("training step")
    drawing.axes.set_ylabel(unit)
    drawing.legend()
    more = f" The first {len(shown)} of {len(arms)} models." if len(arms) > len(shown) else ""
    over = " Means over seeds." if is_summary(report) else ""
    about = f"{unit.capitalize()} at each step of training.{over}{more}"
    return Figure(drawing.svg(name, f"{title}.", about), f"{title}.", about)


def _bar(report: Report, arm: str, name: str, row: dict[str, Any]) -> Bar:
    low, high = row["interval"]
    return Bar(name, 100 * row["pass_at_1"], 100 * low, 100 * high, colour(report, arm))


def all_figures(report: Report, prefix: str = "f") -> dict[str, list[Figure]]:
    """{section: figures}: arms, others (benchmarks), variants, rgr, teachers, cost, curves; without data it is empty.

    Args:
        prefix: of all ids; letters, digits and hyphens.
    """
    name = headline(report)
    with drawn():
        one: dict[str, Figure | None] = {
            "arms": arms_figure(report, name, f"{prefix}-arms"),
            "variants": variants_figure(report, name, f"{prefix}-variants"),
            "rgr": rgr_figure(report, name, f"{prefix}-rgr"),
            "teachers": teachers_figure(report, name, f"{prefix}-teachers"),
            "cost": cost_figure(report, name, f"{prefix}-cost"),
        }
        found = {section: [] if figure is None else [figure] for section, figure in one.items()}
        others = [b for b in benchmarks(report) if b not in (name, "average")]
        found["others"] = [arms_figure(report, b, f"{prefix}-other{i}") for i, b in enumerate(others)]
        found["curves"] = curves_figures(report, f"{prefix}-curve")
    return found
