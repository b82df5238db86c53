"""report.json as text: cells, aligned Markdown tables, and report.md made of them."""

from __future__ import annotations

from typing import Any

from w2sr_jax.core.cost import mean_devices
from w2sr_jax.core.trace_config import HYGIENE_FLAGS
from w2sr_jax.grading.statistics import wilson_interval
from w2sr_jax.reporting import multiplicity, sizes
from w2sr_jax.reporting.compare import AVERAGE

Report = dict[str, Any]
Table = list[list[str]]  # the first row is the head
SCORING_NOTE = (
    "Pass@1 in % if another rule counted: the second grader, the first or the last box alone, or each response cut "
    "after its first complete box; with Wilson's interval (over seeds that of one seed's problems). Only main is "
    "compared above."
)
COSTS_NOTE = (
    "How many times dearer GRPO is depends on what is charged, so each definition has its row. Seconds are measured, "
    "not estimated, and the first student that a process trains pays for compiling what later ones reuse; FLOPs are "
    "model FLOPs. A dash is not known (over seeds: not of each of them), or has no meaning: the making of the teacher "
    "for a student whom another model taught, GRPO's way to the accuracy of a student that is not shown to beat the "
    "base."
)
VERDICTS = {True: "holds", False: "FAILS", "not shown": "not shown"}


def benchmarks(report: Report) -> list[str]:
    """The benchmarks and, if there are several, their average."""
    names = [name for name in report["arms"][report["base"]] if name != AVERAGE]
    return names if len(names) == 1 else [*names, AVERAGE]


def headline(report: Report) -> str:
    """The benchmark whose numbers stand for the experiment: the average, or the only one."""
    return benchmarks(report)[-1]


def students(report: Report) -> list[str]:
    """The arms that were trained for the comparison: those with a route, or all where no route is given."""
    routes = report["ledger"]["routes"]
    return [arm for arm in report["rgr"] if not routes or arm in routes]


def is_summary(report: Report) -> bool:
    return report["kind"] == "summary"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def pass_at_1(row: dict[str, Any]) -> str:
    """ "59.8 [55.5, 64.0]" in per cent; over seeds "59.8 ± 2.1 [54.6, 65.0]"."""
    spread = f" ± {percent(row['sd'])}" if "sd" in row else ""
    return f"{percent(row['pass_at_1'])}{spread} [{percent(row['interval'][0])}, {percent(row['interval'][1])}]"


def share(count: float, total: float) -> str:
    """ "3.2 [2.1, 4.9]": a share of so many in per cent, with Wilson's interval."""
    low, high = wilson_interval(count, total)
    return f"{percent(count / total)} [{percent(low)}, {percent(high)}]" if total else "-"


def rgr(cell: dict[str, Any]) -> str:
    """ "0.82 [0.70, 0.95]" or "undefined"."""
    if "undefined" in cell:
        return "undefined"
    return f"{cell['value']:.2f} [{cell['interval'][0]:.2f}, {cell['interval'][1]:.2f}]"


def rgr_of(report: Report, arm: str, benchmark: str) -> str:
    """The RGR cell of any arm; base and ceiling are its two ends."""
    if arm == report["base"]:
        return "0 (base)"
    if arm == report["ceiling"]:
        return "1 (ceiling)"
    if arm in report["baselines"]:
        return f"{rgr(report['baselines'][arm][benchmark]['rgr'])} for free"
    return rgr(report["rgr"][arm][benchmark])


def quantity(value: float | None) -> str:
    """A count or an amount in three digits: 12.3M; a dash where it is not known."""
    if value is None:
        return "-"
    value = float(f"{value:.3g}")  # before the unit is chosen: 999,999 is 1M
    for power, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power:
            return f"{value / power:.3g}{unit}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def arms_table(report: Report) -> Table:
    """Arm, Pass@1, RGR, what it learned from, stop rate, device-seconds of its route."""
    name = headline(report)
    spread = "mean ± sd over seeds, 95 %" if is_summary(report) else "95 %"
    routes = report["ledger"]["routes"]
    stops = "stop_rate" in report["arms"][report["base"]][name]  # published rows do not say
    head = ["arm", f"Pass@1 {name}, % ({spread})", "RGR (95 %)"]
    learned = report.get("trace_sizes", {})
    head += ["traces (problems)"] if learned else []
    table = [head + (["stopped, % (95 %)"] if stops else []) + (["device-s"] if routes else [])]
    for arm, rows in report["arms"].items():
        line = [arm, pass_at_1(rows[name]), rgr_of(report, arm, name)]
        line += [sizes.cell(learned[arm]) if arm in learned else "-"] if learned else []
        line += [share(rows[name]["stop_rate"] * rows[name]["n"], rows[name]["n"])] if stops else []
        spent = [seconds(routes[arm]["total"]["device_seconds"]) if arm in routes else "-"] if routes else []
        table.append(line + spent)
    return table


def benchmark_table(report: Report, what: str) -> Table:
    """Pass@1 ("pass_at_1") or RGR ("rgr") of every arm on every benchmark."""
    names = benchmarks(report)
    table = [["arm", *names]]
    for arm, rows in report["arms"].items():
        cells = [pass_at_1(rows[n]) if what == "pass_at_1" else rgr_of(report, arm, n) for n in names]
        table.append([arm, *cells])
    return table


def claims_table(report: Report) -> Table:
    """Each claim with its difference, interval and verdict, in a summary the seeds in which it holds, and Holm's p."""
    table = [["claim", "arms", "difference, points (95 %)", "verdict", "p (Holm)"]]
    for sentence, claim in report["claims"].items():
        low, high = claim["interval"]
        gain = f"{100 * claim['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        verdict = VERDICTS[claim["holds"]]
        if "seeds" in claim:
            verdict += f" ({claim['seeds_holding']} of {claim['seeds']} seeds alone)"
        cells = [f"{claim['higher']} > {claim['lower']}", gain, verdict, multiplicity.cell(claim)]
        table.append([sentence, *cells])
    return table


def ratios_table(report: Report) -> Table:
    """Each definition of "GRPO costs so many times more", one column per student; empty definitions left out."""
    ledger = report["ledger"]
    table = [["GRPO cost / student's cost", *ledger["ratios"]]]
    for key, sentence in ledger["definitions"].items():
        if any(ratios[key] is not None for ratios in ledger["ratios"].values()):
            table.append([sentence, *(ratio(ledger, arm, key) for arm in ledger["ratios"])])
    return table


def ratio(ledger: dict[str, Any], arm: str, key: str) -> str:
    """ "27x", over seeds "27x (21 to 33)"; a dash where it is not known."""
    value = ledger["ratios"][arm][key]
    if value is None:
        return "-"
    low, high = (f"{end:.3g}" for end in (ledger["ratio_ranges"][arm][key] if "ratio_ranges" in ledger else (0, 0)))
    return f"{value:.3g}x" + (f" ({low} to {high})" if low != high else "")


def ledger_table(report: Report) -> Table:
    """What every stage of every route used, and the routes' sums."""
    table = [["route", "stage", "device", "device-s", "of it compiling", "tokens in", "tokens out", "FLOPs", "USD"]]
    routes = dict(report["ledger"]["routes"])
    if report["ledger"]["teacher"]:
        routes["(making the teacher)"] = report["ledger"]["teacher"]
    for arm, route in routes.items():
        for line in route["stages"]:
            device = f"{line['device_count']} x {line['device_kind']}"
            compiling = line["compile_seconds"] * mean_devices(line)
            stage = f"{line['stage']} {line['name']}" if line["name"] != line["stage"] else line["stage"]
            table.append([arm, stage, device, *_amounts(line, compiling)])
        if len(route["stages"]) != 1:
            what, kinds = route["total"], ", ".join(route["total"]["device_kinds"])
            stage = "mean over seeds" if is_summary(report) else "sum"
            table.append([arm, stage, kinds, *_amounts(what, what["compile_device_seconds"])])
    return table


def _amounts(row: dict[str, Any], compiling: float) -> list[str]:
    usd = "-" if row["usd"] is None else f"{row['usd']:.2f}"
    counts = [quantity(row[key]) for key in ("tokens_in", "tokens_out", "flops")]
    return [seconds(row["device_seconds"]), seconds(compiling), *counts, usd]


def hygiene_table(report: Report) -> Table:
    """Share of the responses of each arm that raise each flag, in per cent, with its interval.

    Over seeds that of one seed's responses: all may be answers to the same problems.
    """
    seeds = len(report["seeds"]) if is_summary(report) else 1
    table = [["arm", "responses", *(f"{flag.replace('_', ' ')}, %" for flag in HYGIENE_FLAGS)]]
    for arm, counts in report["hygiene"].items():
        shares = [share(counts[flag] / seeds, counts["responses"] / seeds) for flag in HYGIENE_FLAGS]
        table.append([arm, str(counts["responses"]), *shares])
    return table


def scoring_table(report: Report) -> Table:
    """Pass@1 of every arm under every scoring rule, and how often the graders disagree; no lines for old results."""
    rules = ["main", "second", "first_box", "last_box", "stop_at_box"]
    table = [["arm", "benchmark", *(rule.replace("_", " ") for rule in rules), "right by main only", "by second only"]]
    for arm, rows in report.get("scoring", {}).items():
        for benchmark, row in rows.items():
            split = [str(row["disagreements"][key]) for key in ("main_only", "second_only")]
            n = report["arms"][arm][benchmark]["n"]
            table.append([arm, benchmark, *(share(row[rule] * n, n) for rule in rules), *split])
    return table


def markdown_table(table: Table) -> str:
    """A pipe table whose columns also line up on a terminal; the first column is text, the others numbers."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in table]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def notes(report: Report) -> list[str]:
    """What a reader must know beside the numbers."""
    found = []
    name = headline(report)
    undefined = {c[name]["undefined"] for c in report["rgr"].values() if "undefined" in c[name]}
    undefined |= {c[name]["rgr"]["undefined"] for c in report["baselines"].values() if "undefined" in c[name]["rgr"]}
    found += [f"RGR is undefined: {reason}." for reason in sorted(undefined)]
    for benchmark in benchmarks(report)[:-1]:  # the headline is last
        reasons = {c[benchmark]["undefined"] for c in report["rgr"].values() if "undefined" in c[benchmark]}
        found += [f"RGR on {benchmark} is undefined: {reason}." for reason in sorted(reasons - undefined)]
    for arm, rows in report["baselines"].items():
        below = [a for a in students(report) if report["arms"][a][name]["pass_at_1"] <= rows[name]["pass_at_1"]]
        if below:
            found.append(f"{arm} needs no training, and these students do not score above it: {', '.join(below)}.")
    found += [line] if (line := sizes.unequal(report.get("trace_sizes", {}))) else []
    if report["mixed"]:
        found.append(f"Decoding protocols are mixed, as allow_mixed_decoding permits: {'; '.join(report['mixed'])}.")
    return found + report.get("notes", [])


def summary_text(report: Report) -> str:
    """Title, the table of arms with RGR, the claims, the cost ratios: what a run prints at its end."""
    arms = report["arms"][report["base"]]
    each = " a seed" if is_summary(report) else ""
    what = ", ".join(f"{name} (n={arms[name]['n']}{each})" for name in benchmarks(report) if name != AVERAGE)
    origin = f"seeds {', '.join(map(str, report['seeds']))}" if is_summary(report) else f"seed {report['seed']}"
    parts = [f"# {report['title']}", f"{what}, {origin}, commit {(report['commit'] or 'unknown')[:10]}"]
    parts.append(markdown_table(arms_table(report)))
    parts += notes(report)
    if report["claims"]:
        parts.append(markdown_table(claims_table(report)))
        parts += [many] if (many := multiplicity.sentence(report["claims"])) else []
    if report["ledger"]["ratios"]:
        parts += [markdown_table(ratios_table(report)), COSTS_NOTE]
    return "\n\n".join(parts)


def render_markdown(report: Report) -> str:
    """report.md."""
    parts = [summary_text(report)]
    if len(benchmarks(report)) > 1:
        parts += ["## Pass@1, %", markdown_table(benchmark_table(report, "pass_at_1"))]
        parts += ["## RGR", markdown_table(benchmark_table(report, "rgr"))]
    if report["ledger"]["routes"]:
        parts += ["## Ledger", markdown_table(ledger_table(report))]
    if len(scoring := scoring_table(report)) > 1:
        parts += ["## Scoring rules", SCORING_NOTE, markdown_table(scoring)]
    if report["hygiene"]:
        parts += ["## Response hygiene", markdown_table(hygiene_table(report))]
    return "\n\n".join(parts) + "\n"
