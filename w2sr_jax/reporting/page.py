"""report.html of one experiment, of its seeds, or of published rows: what a person reads, and in which order."""

from __future__ import annotations

from collections import Counter
from typing import Any

from w2sr_jax.reporting import lab_page, multiplicity, paper, plots, tables
from w2sr_jax.reporting.html import Figure, Folded, Note, Part, Sample, Section, Table, Text, Tiles
from w2sr_jax.reporting.samples import Sample as Picked

Report = dict[str, Any]
RGR = "RGR = (arm - base) / (ceiling - base): the share of what RL gains that the student got without RL."


def sections(report: Report, shown: list[Picked]) -> list[Section]:
    """The sections of a report's own page.

    Args:
        shown: responses to look at.
    """
    figures = plots.all_figures(report)
    return [
        results(report, figures),
        *traces_and_teachers(figures),
        *beside_paper(report),
        *by_benchmark(report, figures),
        *claims(report),
        *costs(report, figures),
        *training(figures),
        *lab_page.sections(report),
        *scoring(report),
        *hygiene(report),
        *responses(shown),
        provenance(report),
    ]


def in_book(report: Report, prefix: str) -> Section:
    """One report as a section of a page of several.

    Args:
        prefix: of ids and of the names of tables, its own for each report.
    """
    figures = plots.all_figures(report, prefix)
    parts: list[Part | Section] = [
        results(report, figures, f"{prefix}-"),
        *claims(report, f"{prefix}-"),
        # The shared arms alone need not be shown again in every section.
        *(traces_and_teachers(figures) if report["ledger"]["routes"] or "w2sr_n" in report["arms"] else []),
        *costs(report, figures, f"{prefix}-"),
        *training(figures),
        *lab_page.sections(report, f"{prefix}-"),
    ]
    return Section(report["title"], parts, origin(report))


def origin(report: Report) -> str:
    """Which problems were asked, and of which seeds."""
    arms = report["arms"][report["base"]]
    names = [name for name in tables.benchmarks(report) if name != "average"]
    each = " a seed" if tables.is_summary(report) else ""
    what = ", ".join(f"{name} ({arms[name]['n']} problems{each})" for name in names)
    if tables.is_summary(report):
        return f"{what}; {len(report['seeds'])} seeds ({', '.join(map(str, report['seeds']))})"
    return f"{what}; seed {report['seed']}"


def dots(report: Report) -> dict[str, str]:
    return {arm: plots.colour(report, arm) for arm in report["arms"]}


def results(report: Report, figures: dict[str, list[Figure]], prefix: str = "") -> Section:
    return Section(
        "Pass@1 and reasoning gap recovered",
        [
            Tiles(tiles(report)),
            *(Note(note) for note in tables.notes(report)),
            Table(tables.arms_table(report), f"{prefix}arms", dots=dots(report)),
            *figures["arms"],
            *figures["rgr"],
        ],
        RGR,
    )


def tiles(report: Report) -> list[tuple[str, str, str]]:
    """The numbers to take away: best student, its RGR, the free baseline's, and the cost ratio."""
    name, ledger = tables.headline(report), report["ledger"]
    students = tables.students(report)
    found = []
    if students:
        best = max(students, key=lambda a: report["arms"][a][name]["pass_at_1"])
        row = report["arms"][best][name]
        low, high = (tables.percent(end) for end in row["interval"])
        ends = [arm for arm in (report["base"], report["ceiling"]) if arm is not None]
        span = ", ".join(f"{arm} {tables.percent(report['arms'][arm][name]['pass_at_1'])}" for arm in ends)
        score = f"{tables.percent(row['pass_at_1'])} %"
        found.append(("Best student, Pass@1", score, f"{best}, 95 % interval {low} to {high}; {span}"))
        found.append(("Its RGR", *_rgr_tile(report["rgr"][best][name])))
        if best in ledger["ratios"]:
            cost, _, span = tables.ratio(ledger, best, "route").partition(" ")
            found.append(("GRPO costs", cost, f"what SFT, traces and filter cost {span}".strip()))
    for arm, rows in report["baselines"].items():
        found.append((f"{arm}: RGR for free", *_rgr_tile(rows[name]["rgr"])))
    return found


def _rgr_tile(cell: dict[str, Any]) -> tuple[str, str]:
    if "undefined" in cell:
        return "undefined", cell["undefined"].split(":")[0]
    low, high = cell["interval"]
    return f"{cell['value']:.2f}", f"95 % interval {low:.2f} to {high:.2f}"


def traces_and_teachers(figures: dict[str, list[Figure]]) -> list[Section]:
    found = [*figures["variants"], *figures["teachers"]]
    about = (
        "Does it matter whether the traces are right? And does structure beat scale: a small teacher that reasons "
        "against a large one that does not?"
    )
    return [Section("Traces and teachers", found, about)] if found else []


def beside_paper(report: Report) -> list[Section]:
    rows = paper.table(report)
    parts: list[Part] = [Table(rows, "paper", text_columns=2)] if len(rows) > 1 else []
    if report.get("published"):
        parts.append(Text(f"Published for the same models, to compare with: {report['published']}"))
    return [Section("Beside the paper", parts, f"{paper.SOURCE}. {paper.ABOUT}")] if parts else []


def by_benchmark(report: Report, figures: dict[str, list[Figure]]) -> list[Section]:
    if len(tables.benchmarks(report)) == 1:
        return []
    scores, gaps = tables.benchmark_table(report, "pass_at_1"), tables.benchmark_table(report, "rgr")
    parts: list[Part] = [
        Table(scores, "benchmarks", "Pass@1, %", dots=dots(report)),
        Table(gaps, "benchmarks-rgr", "RGR", dots=dots(report)),
        *figures["others"],
    ]
    return [Section("Benchmarks", parts, "Each with its interval; the average has all benchmarks at equal weight.")]


def claims(report: Report, prefix: str = "") -> list[Section]:
    if not report["claims"]:
        return []
    over = (
        "over seeds (t)"
        if tables.is_summary(report)
        else "over problems (paired bootstrap; of fewer than ten, the sign test too)"
    )
    about = (
        f"A claim holds or fails when the 95 % interval of the difference, {over}, leaves 0 out; else it is not shown."
    )
    # On a phone the verdict is what must be seen first.
    rows = [[claim, verdict, gain, p, arms] for claim, arms, gain, verdict, p in tables.claims_table(report)]
    table = Table(rows, f"{prefix}claims", text_columns=1, badge_column=1)
    spoken = [Text(text) for text in (in_words(report), multiplicity.sentence(report["claims"])) if text]
    return [Section("Claims", [*spoken, table], about)]


def in_words(report: Report) -> str:
    """How many claims hold; those that fail and those without a result are named."""
    verdicts = {sentence: tables.VERDICTS[claim["holds"]] for sentence, claim in report["claims"].items()}
    counts = Counter(verdicts.values())
    parts = [f"{counts['holds']} of {len(verdicts)} claims hold."]
    for verdict, what in (("FAILS", "The opposite was found of"), ("not shown", "No difference was shown for")):
        if named := [sentence for sentence, found in verdicts.items() if found == verdict]:
            parts.append(f"{what}: {'; '.join(named)}.")
    return " ".join(parts)


def costs(report: Report, figures: dict[str, list[Figure]], prefix: str = "") -> list[Section]:
    ledger = report["ledger"]
    if not ledger["routes"]:
        return []
    parts: list[Part] = [*figures["cost"]]
    if ledger["ratios"]:
        parts.append(Table(tables.ratios_table(report), f"{prefix}cost-ratios"))
    stages = Table(tables.ledger_table(report), f"{prefix}ledger", text_columns=3)
    parts.append(Folded("Ledger of every stage", [stages]))
    return [Section("What each route costs", parts, tables.COSTS_NOTE)]


def training(figures: dict[str, list[Figure]]) -> list[Section]:
    about = "As logged while training: the loss of fine-tuning, reward, length and validation of GRPO."
    return [Section("Training", figures["curves"], about)] if figures["curves"] else []


def scoring(report: Report) -> list[Section]:
    table = tables.scoring_table(report)
    found = Table(table, "scoring-rules", text_columns=2, dots=dots(report))
    return [Section("Scoring rules", [found], tables.SCORING_NOTE)] if len(table) > 1 else []


def hygiene(report: Report) -> list[Section]:
    if not report["hygiene"]:
        return []
    over = " (that of one seed's responses)" if tables.is_summary(report) else ""
    what = f"Share of the evaluated responses that raise each flag, with Wilson's interval{over}."
    table = Table(tables.hygiene_table(report), "hygiene", dots=dots(report))
    return [Section("Response hygiene", [table], what)]


def responses(shown: list[Picked]) -> list[Section]:
    found = []
    for sample in shown:
        seen = sample.prediction
        about = f"{seen.benchmark} {seen.problem_id}, {seen.response_tokens} tokens, {seen.finish_reason}"
        answer = "no answer found" if seen.extracted is None else f"answer {seen.extracted[:200]}"
        found.append(Sample("right" if seen.correct else "wrong", sample.arm, about, sample.text, answer))
    about = "The first right and the first wrong one of each arm."
    return [Section("Responses", found, about, optional=True)] if found else []


def provenance(report: Report) -> Section:
    rows = [["what", "value"], ["commit", report["commit"] or "unknown"]]
    for benchmark, protocol in report["decoding"].items():
        rows.append([f"decoding, {benchmark}", ", ".join(f"{key} {value!r}" for key, value in protocol.items())])
    return Section("Provenance", [Table(rows, "provenance", text_columns=2)])
