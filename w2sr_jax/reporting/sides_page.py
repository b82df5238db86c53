"""compare.json as a page: who computes the same, how fast each is, and the curves behind both."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from w2sr_jax.core.rows import Row, rows_table
from w2sr_jax.reporting import figures, html
from w2sr_jax.reporting.sides import (
    ANSWERS_NOTE,
    RECIPES_NOTE,
    RECIPES_TITLE,
    Found,
    answers_table,
    basis,
    notes,
    parity_table,
    recipes_table,
    rows,
)

COLOURS = {"ours": "student", "eager": "ceiling", "compile": "free", "trl": "purple", "transformers": "ceiling"}
SPEED = ("training step, ", "GRPO update, ", "generation, ")
MOST_TILES = 6


def render(found: Found) -> str:
    """compare.html."""
    with figures.drawn():
        same = [figure for number, one in enumerate(_trained(found)) for figure in _curves(*one, f"c{number}")]
        fast = [_turns(*one, f"t{number}") for number, one in enumerate(_trained(found))]
        ratios = _ratios(headline(rows(found)))
    speed: list[html.Part | html.Section] = [*([ratios] if ratios else []), *fast]
    speed.append(html.Table(rows_table(rows(found)), caption="Every row, from one run."))
    sections = [
        html.Section("In short", [*(html.Note(note) for note in notes(found)), html.Tiles(tiles(found))]),
        html.Section(
            "The same training",
            [html.Table(parity_table(found), text_columns=2), *same],
            about="The largest relative difference of a step, beside what is allowed.",
        ),
    ]
    if found["answers"]:
        answers = html.Table(answers_table(found), text_columns=2)
        sections.append(html.Section("The same answers", [answers], about=ANSWERS_NOTE))
    sections.append(html.Section("Speed, memory and cost", speed))
    if found["recipes"]:
        table = html.Table(recipes_table(found), text_columns=2)
        sections.append(html.Section(RECIPES_TITLE, [table], about=RECIPES_NOTE))
    return html.page("JAX against PyTorch", sections, about=basis(found), foot="Made by w2sr compare.")


def headline(found: Sequence[Row]) -> list[Row]:
    """Rows of speed, each workload against the fastest of its peers."""
    best: dict[str, Row] = {}
    for one in found:
        if one.what.startswith(SPEED) and "p90" not in one.what and one.runs >= 5:
            best[one.what] = min(one, best.get(one.what, one), key=lambda row: row.ratio)
    return list(best.values())


def tiles(found: Found) -> list[tuple[str, str, str]]:
    """Numbers to take away."""
    return [
        (one.what, f"{one.ratio:.2f}x", f"against {one.against}: {one.ours:.4g} beside {one.peer:.4g} {one.unit}")
        for one in headline(rows(found))[:MOST_TILES]
    ]


def _trained(found: Found) -> list[tuple[str, dict[str, Any]]]:
    return [(name, one) for name, one in found["workloads"].items() if one["kind"] != "generate"]


def _curves(name: str, workload: dict[str, Any], prefix: str) -> list[html.Figure]:
    """Loss of each side, and how far the peers' losses are from ours."""
    kind = "SFT" if workload["kind"] == "sft" else "GRPO"
    sides = {side: one["curve"]["loss"] for side, one in workload["sides"].items() if side != "trl"}
    loss = figures.Drawing(220)
    for number, (side, values) in enumerate(sides.items()):
        dash = figures.DASHES[number % len(figures.DASHES)]
        (line,) = loss.axes.plot(values, color=figures.LIGHT[COLOURS[side]], lw=1.7, ls=dash, label=side)
        loss.mark(line, f"{side}: {values[-1]:.6g} after the last")
    loss.axes.set_xlabel("update")
    loss.axes.set_ylabel("loss")
    loss.legend()
    title = f"{kind}, {name}: the loss of each side."
    found = [html.Figure(loss.svg(f"{prefix}-loss", title, "Lines that cannot be told apart are the same."), title)]
    if len(sides) > 1:
        found.append(_gaps(f"{kind}, {name}", sides, workload, prefix))
    return found


def _gaps(name: str, sides: dict[str, list[float]], workload: dict[str, Any], prefix: str) -> html.Figure:
    ours, drawing = sides["ours"], figures.Drawing(220)
    least = 1.0 if workload["kind"] == "grpo" else 1e-30
    for side, values in sides.items():
        if side == "ours":
            continue
        gaps = [max(abs(a - b) / max(abs(a), least), 1e-9) for a, b in zip(ours, values, strict=True)]
        (line,) = drawing.axes.plot(gaps, color=figures.LIGHT[COLOURS[side]], lw=1.5, label=side)
        drawing.mark(line, f"{side}: at most {max(gaps):.1e}")
    allowed = next(iter(workload["parity"].values()))["loss_tolerance"]
    drawing.axes.axhline(allowed, color=figures.LIGHT["muted"], ls=(0, (4, 3)), lw=1.1, label="allowed")
    drawing.axes.set_yscale("log")
    drawing.axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    drawing.axes.set_xlabel("update")
    drawing.axes.set_ylabel("difference of the loss")
    drawing.legend()
    title = f"{name}: the difference of each peer's loss from ours."
    return html.Figure(drawing.svg(f"{prefix}-gap", title), title)


def _turns(name: str, workload: dict[str, Any], prefix: str) -> html.Figure:
    """Seconds of an update in each turn: whether the machine drifted."""
    drawing = figures.Drawing(220)
    for number, (side, one) in enumerate(workload["sides"].items()):
        means = [statistics.fmean(turn) for turn in one["runs"]]
        shape = figures.SHAPES[number % len(figures.SHAPES)]
        tint = figures.LIGHT[COLOURS[side]]
        (line,) = drawing.axes.plot(range(1, len(means) + 1), means, color=tint, marker=shape, ms=5, lw=1.2, label=side)
        drawing.mark(line, f"{side}: median {statistics.median(means):.4g} s")
    drawing.axes.set_ylim(bottom=0)
    drawing.axes.set_xlabel("turn")
    drawing.axes.set_ylabel("seconds an update")
    drawing.legend()
    kind = "SFT" if workload["kind"] == "sft" else "GRPO"
    title = f"{kind}, {name}: seconds of an update, turn by turn."
    return html.Figure(drawing.svg(f"{prefix}-turns", title), title)


def _ratios(found: Sequence[Row]) -> html.Figure | None:
    """A bar a workload: ours against the fastest peer."""
    if not found:
        return None
    drawing = figures.Drawing(figures.bars_height(len(found)))
    bars = [
        figures.Bar(one.what, one.ratio, one.ratio, one.ratio, "student" if one.ratio >= 1 else "ceiling")
        for one in found
    ]
    drawing.bars(bars, "times as fast as the fastest peer", lambda value: f"{value:.2f}")
    drawing.axes.axvline(1.0, color=figures.LIGHT["ink"], ls=(0, (4, 3)), lw=1.1)
    title = "Ours against the fastest peer of each workload; above 1 is better for us."
    return html.Figure(drawing.svg("ratios", title), title)
