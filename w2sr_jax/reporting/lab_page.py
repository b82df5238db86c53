"""The trace lab on a page: what the traces of each set are like, and how that goes with what students gained."""

from __future__ import annotations

from typing import Any

from w2sr_jax.core.trace_config import HYGIENE_FLAGS
from w2sr_jax.grading.statistics import wilson_interval
from w2sr_jax.reporting import lab
from w2sr_jax.reporting.figures import DASHES, LIGHT, SERIES, SHAPES, Bar, Drawing, bars_height, drawn, short
from w2sr_jax.reporting.html import Figure, Note, Part, Section, Table, Text
from w2sr_jax.reporting.tables import Table as Rows
from w2sr_jax.reporting.tables import markdown_table, share

Report = dict[str, Any]
MOST_SETS = 6  # lines in a figure that can still be told apart
ABOUT = (
    'What the traces of each set are like. Reflection counts words such as "wait" or "let me check" '
    "(traces/markers.py lists them); a near-duplicate shares four fifths of its runs of five words with an earlier "
    "trace; flags are those of grading/hygiene.py. Intervals are 95 %."
)
HOW_SURPRISE = (
    "No perplexity: no model has read these traces. w2sr report --config=configs/report.py:traces "
    "--config.traces=\"('TRACES',)\" --config.problems=PROBLEMS --config.score_model=STUDENT adds it."
)


def sections(report: Report, prefix: str = "") -> list[Section]:
    """The section of a report that has a trace lab; none for one without."""
    found = report.get("trace_lab")
    if not found:
        return []
    parts: list[Part] = [Table(overview(found), f"{prefix}traces"), *_notes(found)]
    with drawn():
        parts += figures(found, f"{prefix}lab")
    if any(study["reflective"] for study in found["sets"].values()):
        parts.append(Table(markers_table(found), f"{prefix}traces-markers", "Reflection markers, % of the traces"))
    if any(study["unhealthy"] for study in found["sets"].values()):
        parts.append(Table(hygiene_table(found), f"{prefix}traces-hygiene", "Hygiene flags, % of the traces"))
    if len(levels := levels_table(found)) > 1:
        parts.append(Table(levels, f"{prefix}traces-levels", "Right answers by the problem's level, %"))
    if any("rho" in of for of in found["go_with"].values()):
        parts.append(Table(go_with_table(found), f"{prefix}traces-gain", f"Rank correlation with {found['gain_is']}"))
    return [Section("Trace lab", parts, ABOUT)]


def text(report: Report) -> str:
    """The same as Markdown."""
    found = report["trace_lab"]
    parts = [f"# {report['title']}", markdown_table(overview(found))]
    parts += [note.text for note in _notes(found)]
    for title, rows in (
        ("Reflection markers, % of the traces", markers_table(found)),
        ("Hygiene flags, % of the traces", hygiene_table(found)),
        ("Right answers by level, %", levels_table(found)),
        (f"Rank correlation with {found['gain_is']}", go_with_table(found)),
    ):
        if len(rows) > 1:
            parts += [f"## {title}", markdown_table(rows)]
    return "\n\n".join(parts) + "\n"


def overview(found: dict[str, Any]) -> Rows:
    """A line for each set: its size and its features."""
    rows: Rows = []
    for name, study in found["sets"].items():
        of_set = lab.features(study)
        if not rows:
            rows.append(["set", "traces", "problems", f"{found['gain_is']}", *of_set, "of another problem, %"])
        gain = _points(found["gains"][name]) if name in found["gains"] else "-"
        repeated = share(study["near_duplicates"]["other_problem"], study["traces"])
        cells = [_value(value) for value in of_set.values()]
        rows.append([name, f"{study['traces']:,}", f"{study['problems']:,}", gain, *cells, repeated])
    return rows


def _gain(found: dict[str, Any]) -> str:
    """What is gained, without its unit."""
    return str(found["gain_is"].split(",")[0])


def _points(gain: lab.Gain) -> str:
    low, high = (100 * end for end in gain["interval"])
    return f"{100 * gain['value']:.1f} [{low:.1f}, {high:.1f}]"


def _value(value: lab.Value | None) -> str:
    if value is None:
        return "-"
    digits = 2 if abs(value[0]) < 10 else 1
    return f"{value[0]:.{digits}f} [{value[1][0]:.{digits}f}, {value[1][1]:.{digits}f}]"


def _notes(found: dict[str, Any]) -> list[Note | Text]:
    notes: list[Note | Text] = []
    studies = found["sets"].values()
    few = [of["too_few"] for of in found["go_with"].values() if "too_few" in of]
    if few and not any("rho" in of for of in found["go_with"].values()):
        sets = f"{max(few)} set{'' if max(few) == 1 else 's'}"
        few_sets = f"{sets} with an evaluated student, at least {lab.FEWEST_SETS} are asked for"
        notes.append(Note(f"Too few to say how features go with {_gain(found)}: {few_sets}."))
    if not found["gains"]:
        notes.append(Note("No evaluated student belongs to these sets: how features go with its gain is not known."))
    if ungraded := [name for name, study in found["sets"].items() if not study["graded"]]:
        how = "Not graded (w2sr filter grades, and so does config.problems here), so without right answers"
        notes.append(Text(f"{how}: {', '.join(ungraded)}."))
    if all(study["surprisal"] is None for study in studies):
        notes.append(Text(HOW_SURPRISE))
    if edited := [name for name, study in found["sets"].items() if study["edited"]]:
        why = "Changed on purpose, so that their tokens are not known (correlations with tokens leave them out)"
        notes.append(Text(f"{why}: {', '.join(edited)}."))
    if failed := sum(study["failed"] for study in studies):
        notes.append(Text(f"{failed} requests had no response and are left out."))
    return notes


def markers_table(found: dict[str, Any]) -> Rows:
    rows: Rows = []
    for name, study in found["sets"].items():
        rows = rows or [["set", *(marker.replace("_", " ") for marker in study["markers"]), "in 1,000 words"]]
        cells = [share(count, study["traces"]) for count in study["markers"].values()]
        words = max(1, study["words"])
        rate = study["marks"] / words
        low, high = wilson_interval(min(study["marks"], words), words)
        rows.append([name, *cells, f"{1000 * rate:.2f} [{1000 * low:.2f}, {1000 * high:.2f}]"])
    return rows


def hygiene_table(found: dict[str, Any]) -> Rows:
    rows: Rows = [["set", *(flag.replace("_", " ") for flag in HYGIENE_FLAGS)]]
    for name, study in found["sets"].items():
        rows.append([name, *(share(study["hygiene"][flag], study["traces"]) for flag in HYGIENE_FLAGS)])
    return rows


def levels_table(found: dict[str, Any]) -> Rows:
    levels = list(dict.fromkeys(level for study in found["sets"].values() for level in study["by_level"]))
    rows: Rows = [["set", *levels]]
    for name, study in found["sets"].items():
        if study["by_level"]:
            rows.append([name, *(share(*study["by_level"].get(level, (0, 0))) for level in levels)])
    return rows


def go_with_table(found: dict[str, Any]) -> Rows:
    rows: Rows = [["feature", "Spearman's rho (95 %)", "sets"]]
    for feature, of in found["go_with"].items():
        if "rho" in of:
            low, high = of["interval"]
            verdict = "" if low > 0 or high < 0 else ", not shown"
            rows.append([feature, f"{of['rho']:+.2f} [{low:+.2f}, {high:+.2f}]{verdict}", str(of["sets"])])
        else:
            why = "too few sets" if "too_few" in of else "the same everywhere"
            rows.append([feature, why, str(of.get("too_few", "-"))])
    return rows


def figures(found: dict[str, Any], prefix: str) -> list[Figure]:
    """Length, right answers by length and by level, and gain against right answers; those that have data."""
    made = [
        _lengths(found, f"{prefix}-length"),
        _right(found, f"{prefix}-right"),
        _right_by_length(found, f"{prefix}-bylength"),
        _against(found, "right, %", f"{prefix}-gain-right"),
        _against(found, "characters", f"{prefix}-gain-length"),
    ]
    return [figure for figure in made if figure is not None]


def _lengths(found: dict[str, Any], name: str) -> Figure:
    sets = found["sets"]
    drawing = Drawing(bars_height(len(sets)))
    # The tokens of changed traces are not known.
    unit = "characters" if any(study["edited"] for study in sets.values()) else "tokens"
    for y, (set_name, study) in enumerate(sets.items()):
        tokens = study[unit]
        drawing.axes.plot([tokens["p10"], tokens["p90"]], [y, y], color=LIGHT["student"], lw=5, alpha=0.45)
        (point,) = drawing.axes.plot(tokens["p50"], y, "o", ms=8, color=LIGHT["student"], mec=LIGHT["card"])
        span = f"{tokens['p10']:,.0f} to {tokens['p90']:,.0f}"
        drawing.mark(point, f"{set_name}: median {tokens['p50']:,.0f}, 10 to 90 % {span}")
    drawing.name_rows(list(sets))
    drawing.axes.set_xlabel(f"{unit} of a trace")
    title, about = "Length.", "Median, and the range from the 10th to the 90th percentile."
    return Figure(drawing.svg(name, title, about), title, about)


def _right(found: dict[str, Any], name: str) -> Figure | None:
    graded = {n: lab.features(study)["right, %"] for n, study in found["sets"].items()}
    rows = [Bar(n, value[0], *value[1], "green") for n, value in graded.items() if value is not None]
    if not rows:
        return None
    drawing = Drawing(bars_height(len(rows)))
    drawing.bars(rows, "right answers, %", lambda value: f"{value:.1f}")
    title, about = "Right answers.", "Share of the graded traces, with Wilson's interval."
    return Figure(drawing.svg(name, title, about), title, about)


def _right_by_length(found: dict[str, Any], name: str) -> Figure | None:
    # A set of right traces only, or of wrong ones only, has nothing to show.
    graded = {name: study for name, study in found["sets"].items() if 0 < study["right"] < study["graded"]}
    mixed = {name: study["by_length"] for name, study in graded.items() if len(study["by_length"]) > 1}
    if not mixed:
        return None
    drawing = Drawing(240)
    shown = dict(list(mixed.items())[:MOST_SETS])
    for number, (set_name, bins) in enumerate(shown.items()):
        tint = LIGHT[SERIES[number % 4]]
        shares = [100 * row["right"] / row["graded"] for row in bins]
        (line,) = drawing.axes.plot([row["mean"] for row in bins], shares, color=tint, ls=DASHES[number % 4], lw=1.6,
                                    marker=SHAPES[number], ms=6, label=short(set_name))  # fmt: skip
        listed = (f"{row['from']} to {row['to']}: {value:.0f} %" for row, value in zip(bins, shares))
        drawing.mark(line, f"{set_name}: {', '.join(listed)}")
        for row in bins:
            low, high = wilson_interval(row["right"], row["graded"])
            drawing.axes.plot([row["mean"]] * 2, [100 * low, 100 * high], color=tint, lw=1.2, alpha=0.7)
    drawing.axes.set_xlabel("tokens of a trace")
    drawing.axes.set_ylabel("right answers, %")
    drawing.legend()
    more = f" The first {len(shown)} of {len(mixed)} sets." if len(mixed) > len(shown) else ""
    title = "Right answers by length."
    about = f"Traces in up to five bins of about equal numbers, whiskers are Wilson's interval.{more}"
    return Figure(drawing.svg(name, title, about), title, about)


def _against(found: dict[str, Any], feature: str, name: str) -> Figure | None:
    points = []
    for set_name, gain in found["gains"].items():
        value = lab.features(found["sets"][set_name])[feature]
        if value is not None:
            points.append((value, gain, set_name))
    if len(points) < 3 or len({value[0] for value, *_ in points}) < 2:
        return None
    drawing = Drawing(250)
    for value, gain, set_name in points:
        y, ends = 100 * gain["value"], [100 * end for end in gain["interval"]]
        drawing.axes.plot(value[1], [y, y], color=LIGHT["student"], lw=1.2, alpha=0.6)
        drawing.axes.plot([value[0]] * 2, ends, color=LIGHT["student"], lw=1.2, alpha=0.6)
        (point,) = drawing.axes.plot(value[0], y, "o", ms=8, color=LIGHT["student"], mec=LIGHT["card"])
        drawing.mark(point, f"{set_name}: {feature} {value[0]:.1f}, {_points(gain)}")
    long = feature == "characters"
    drawing.axes.set_xlabel("characters of a trace, mean" if long else "right answers among the traces, %")
    drawing.axes.set_ylabel(f"{found['gain_is']}")
    title = f"{_gain(found).capitalize()} against {'length' if long else 'right answers'}."
    about = "One point a set of traces; pointing at it names it. What goes together need not be cause and effect."
    return Figure(drawing.svg(name, title, about), title, about)
