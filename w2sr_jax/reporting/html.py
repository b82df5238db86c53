"""report.html: one page with its style and its figures inside, readable offline and safe to open.

Arm names, claims and above all responses were written by others: every string goes through `escape`, and the page
forbids scripts and any request (Content-Security-Policy), so that a response cannot do anything but be read.
"""

from __future__ import annotations

from html import escape
from typing import Any

from w2sr_jax.reporting import tables
from w2sr_jax.reporting.samples import Sample

Report = dict[str, Any]

STYLE = """
:root{--ink:#1c2733;--muted:#66727f;--line:#e3e7eb;--blue:#2a6f97;--red:#c8553d;--gold:#c9a227;--green:#3f7d58}
*{box-sizing:border-box}
body{margin:0;background:#f6f7f8;color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1060px;margin:0 auto;padding:40px 24px 72px}
h1{font-size:28px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:18px;margin:0 0 4px}
p{margin:4px 0 12px}
.muted,.sub{color:var(--muted)}
.sub{font-size:13.5px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:24px 0}
.tile,section{background:#fff;border:1px solid var(--line);border-radius:10px}
.tile{padding:14px 18px 16px}
.tile b{display:block;font-size:27px;line-height:1.25;font-weight:650;font-variant-numeric:tabular-nums}
.tile span{font-size:13px;color:var(--muted)}
.tile .what{display:block;font-size:12px;text-transform:uppercase;letter-spacing:.05em}
section{padding:22px 24px;margin:18px 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums;margin:8px 0 4px}
th{color:var(--muted);font-weight:600;font-size:12.5px;text-align:right;vertical-align:bottom;white-space:nowrap}
td{text-align:right;white-space:nowrap}
th,td{padding:6px 12px;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:2px;white-space:normal}
.ratios th,.ratios td{white-space:normal}
.ratios td:first-child{min-width:240px}
.arms th{white-space:normal}
.arms td:first-child{white-space:nowrap}
tr:last-child td{border-bottom:0}
.dot{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.words td:nth-child(2),.words th:nth-child(2){text-align:left}
.badge{display:inline-block;border-radius:99px;padding:1px 10px;font-size:12.5px;font-weight:600}
.holds{background:#e3f1e8;color:var(--green)}.fails{background:#fbe6e1;color:var(--red)}
.unsure{background:#f3eed9;color:#7a6310}
.note{border-left:3px solid var(--gold);background:#fcf9ee;padding:8px 14px;margin:10px 0;border-radius:0 6px 6px 0}
svg{width:100%;height:auto;display:block;margin-top:10px}
svg text{font-family:system-ui,-apple-system,"Segoe UI",sans-serif!important}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:18px}
details{border-top:1px solid var(--line);padding:8px 0}
summary{cursor:pointer}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f7f8;border-radius:6px;padding:10px 12px;margin:8px 0;
font:12.5px/1.5 ui-monospace,"SF Mono",Consolas,monospace}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render_html(report: Report, plots: dict[str, list[str]], samples: list[Sample], colours: dict[str, str]) -> str:
    """The page.

    Args:
        plots: SVG texts by section, from plots.all_plots.
        colours: of each arm, as in the plots.
    """
    body = [
        _header(report),
        _tiles(report),
        *(f'<p class="note">{escape(note)}</p>' for note in tables.notes(report)),
        _section(
            "Pass@1 and reasoning gap recovered",
            "RGR = (arm - base) / (ceiling - base). Dashed lines: base, free baseline and ceiling.",
            _table(tables.arms_table(report), dots=colours) + "".join(plots["arms"][:1] + plots["rgr"]),
        ),
        _benchmarks(report, plots["arms"][1:]),
        _claims(report),
        _costs(report, plots["cost"]),
        _section("Training", "", f'<div class="grid">{"".join(plots["curves"])}</div>') if plots["curves"] else "",
        _scoring(report, colours),
        _hygiene(report, colours),
        _samples(samples),
        _provenance(report),
    ]
    return _page(report["title"], body)


def render_book(
    book: Report, verdicts: tables.Table, plots: list[dict[str, list[str]]], colours: list[dict[str, str]]
) -> str:
    """The page of several reports.

    Args:
        verdicts: of the claims, by section.
        plots, colours: of each section, as for `render_html`.
    """
    body = [f"<h1>{escape(book['title'])}</h1>", _section("Answers", "", _table(verdicts))]
    for section, figures, dots in zip(book["sections"], plots, colours, strict=True):
        body += [
            _header(section),
            *(f'<p class="note">{escape(note)}</p>' for note in tables.notes(section)),
            _section(
                "Pass@1 and RGR", "", _table(tables.arms_table(section), dots=dots) + "".join(figures["arms"][:1])
            ),
            _claims(section),
        ]
    return _page(book["title"], body)


def _page(title: str, body: list[str]) -> str:
    title = escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _header(report: Report) -> str:
    arms = report["arms"][report["base"]]
    names = [name for name in tables.benchmarks(report) if name != "average"]
    what = ", ".join(f"{name} ({arms[name]['n']} problems)" for name in names)
    if tables.is_summary(report):
        origin = f"{len(report['seeds'])} seeds ({', '.join(map(str, report['seeds']))})"
    else:
        origin = f"seed {report['seed']}"
    return f'<h1>{escape(report["title"])}</h1><p class="muted">{escape(what)} &middot; {escape(origin)}</p>'


def _tiles(report: Report) -> str:
    """The numbers to take away: best student, its RGR, the free baseline's, and the cost ratio."""
    name, ledger = tables.headline(report), report["ledger"]
    students = tables.students(report)
    tiles = []
    if students:
        best = max(students, key=lambda a: report["arms"][a][name]["pass_at_1"])
        ends = [arm for arm in (report["base"], report["ceiling"]) if arm is not None]
        span = ", ".join(f"{arm} {tables.percent(report['arms'][arm][name]['pass_at_1'])}" for arm in ends)
        score = tables.percent(report["arms"][best][name]["pass_at_1"])
        tiles.append(("Best student, Pass@1", f"{score} %", f"{best}; {span}"))
        cell = report["rgr"][best][name]
        tiles.append(("Its RGR", *_rgr_tile(cell)))
        if best in ledger["ratios"]:
            cost, _, span = tables.ratio(ledger, best, "route").partition(" ")
            tiles.append(("GRPO costs", cost, f"what SFT, traces and filter cost {span}".strip()))
    for arm, rows in report["baselines"].items():
        tiles.append((f"{arm}: RGR for free", *_rgr_tile(rows[name]["rgr"])))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><span class="what">{escape(what)}</span><b>{escape(value)}</b>'
        f"<span>{escape(detail)}</span></div>"
        for what, value, detail in tiles
    ) + "</div>"  # fmt: skip


def _rgr_tile(cell: dict[str, Any]) -> tuple[str, str]:
    if "undefined" in cell:
        return "undefined", cell["undefined"].split(":")[0]
    low, high = cell["interval"]
    return f"{cell['value']:.2f}", f"95 % interval {low:.2f} to {high:.2f}"


def _benchmarks(report: Report, plots: list[str]) -> str:
    if len(tables.benchmarks(report)) == 1:
        return ""
    scores, gaps = tables.benchmark_table(report, "pass_at_1"), tables.benchmark_table(report, "rgr")
    return _section(
        "Benchmarks",
        "Pass@1 in per cent, then RGR, each with its interval.",
        _table(scores) + _table(gaps) + f'<div class="grid">{"".join(plots)}</div>',
    )


def _claims(report: Report) -> str:
    if not report["claims"]:
        return ""
    table = tables.claims_table(report)
    badges = {"holds": "holds", "FAILS": "fails", "not shown": "unsure"}
    rows = []
    for claim, arms, gain, verdict in table[1:]:
        kind = next(css for word, css in badges.items() if verdict.startswith(word))
        rows.append(
            f"<tr><td>{escape(claim)}</td><td>{escape(arms)}</td><td>{escape(gain)}</td>"
            f'<td><span class="badge {kind}">{escape(verdict)}</span></td></tr>'
        )
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table[0])
    over = "over seeds (t)" if tables.is_summary(report) else "over problems (paired bootstrap)"
    return _section(
        "Claims",
        f"A claim holds or fails when the 95 % interval of the difference, {over}, leaves 0 out.",
        f'<div class="scroll"><table class="words"><tr>{head}</tr>{"".join(rows)}</table></div>',
    )


def _costs(report: Report, plots: list[str]) -> str:
    if not report["ledger"]["routes"]:
        return ""
    body = "".join(plots)
    if report["ledger"]["ratios"]:
        body += _table(tables.ratios_table(report), kind="ratios")
    stages = _table(tables.ledger_table(report), kind="words")
    body += f"<details><summary>Ledger of every stage</summary>{stages}</details>"
    what = "How many times dearer GRPO is depends on what is charged, so each definition has its row. "
    return _section("What each route costs", what + "FLOPs are model FLOPs; a dash is not known.", body)


def _scoring(report: Report, colours: dict[str, str]) -> str:
    table = tables.scoring_table(report)
    return _section("Scoring rules", tables.SCORING_NOTE, _table(table, dots=colours)) if len(table) > 1 else ""


def _hygiene(report: Report, colours: dict[str, str]) -> str:
    if not report["hygiene"]:
        return ""
    what = "Share of the evaluated responses that raise each flag."
    return _section("Response hygiene", what, _table(tables.hygiene_table(report), dots=colours))


def _samples(samples: list[Sample]) -> str:
    if not samples:
        return ""
    found = []
    for sample in samples:
        seen = sample.prediction
        badge = '<span class="badge holds">right</span>' if seen.correct else '<span class="badge fails">wrong</span>'
        about = f"{seen.benchmark} {seen.problem_id}, {seen.response_tokens} tokens, {seen.finish_reason}"
        answer = "no answer found" if seen.extracted is None else f"answer {seen.extracted[:200]}"
        found.append(
            f"<details><summary>{badge} <b>{escape(sample.arm)}</b> "
            f'<span class="muted">{escape(about)}</span></summary>'
            f"<pre>{escape(sample.text)}</pre><p>{escape(answer)}</p></details>"
        )
    return _section("Responses", "The first right and the first wrong one of each arm.", "".join(found))


def _provenance(report: Report) -> str:
    rows = [["", ""], ["commit", report["commit"] or "unknown"]]
    for benchmark, protocol in report["decoding"].items():
        rows.append([f"decoding, {benchmark}", ", ".join(f"{key} {value!r}" for key, value in protocol.items())])
    cells = "".join(
        f'<tr><td style="width:22%">{escape(key)}</td>'
        f'<td style="text-align:left;white-space:normal;overflow-wrap:anywhere">{escape(value)}</td></tr>'
        for key, value in rows[1:]
    )
    return _section("Provenance", "", f"<table>{cells}</table>")


def _section(title: str, sub: str, body: str) -> str:
    below = f'<p class="sub">{escape(sub)}</p>' if sub else ""
    return f"<section><h2>{escape(title)}</h2>{below}{body}</section>"


def _table(table: tables.Table, dots: dict[str, str] | None = None, kind: str = "") -> str:
    """An HTML table.

    Args:
        dots: colour shown before the first cell of a row, by that cell.
        kind: class of the table, see STYLE.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table[0])
    rows = []
    for row in table[1:]:
        dot = f'<i class="dot" style="background:{dots[row[0]]}"></i>' if dots else ""
        rows.append(f"<tr><td>{dot}{escape(row[0])}</td>" + "".join(f"<td>{escape(c)}</td>" for c in row[1:]) + "</tr>")
    kind = kind or ("arms" if dots else "plain")
    return f'<div class="scroll"><table class="{kind}"><tr>{head}</tr>{"".join(rows)}</table></div>'
