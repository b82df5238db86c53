"""Compare the arms of an experiment: Pass@1, RGR, free baselines, claims and costs, as JSON, Markdown and one page.

Four forms. config.arms names the evaluate workdirs of one experiment (one seed); config.reports names the workdirs of
several such reports, and the summary over seeds is written; config.rows holds published numbers, to which
--config.student_row adds a student's; config.sections puts finished reports on one page. All write report.json,
report.md and report.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from w2sr_jax.core import runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.cost import StageClock, append_ledger
from w2sr_jax.core.records import write_json, write_text
from w2sr_jax.core.revision import commit
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.reporting import book, html, plots, published, routes, samples, summary, tables
from w2sr_jax.reporting.compare import AVERAGE, compare
from w2sr_jax.reporting.load import ceiling_of, check_protocols, load_arms

CONFIG = ReportConfig

Curves = dict[str, dict[str, routes.Curve]]  # title -> arm -> points


def main(config: ReportConfig, workdir: str) -> dict[str, Any]:
    """Writes the report and prints its main tables.

    Returns:
        What report.json holds.

    Raises:
        W2SRError: an input is missing or malformed, or the results cannot be compared.
    """
    validate(config)
    with StageClock(workdir, "report", device_kind="cpu") as clock:
        curves, shown = Curves(), list[samples.Sample]()
        if config.sections:
            report = write_book(config, Path(workdir))
            append_ledger(workdir, clock.line())
            return report
        if config.reports:
            report = summary.summarise(config, summary.load_reports(config))
        elif config.rows:
            report = published.compare_rows(config)
        else:
            report, curves, shown = experiment(config)
        report["commit"] = commit()
        write(report, curves, shown, Path(workdir))
        append_ledger(workdir, clock.line())
    print(tables.summary_text(report))
    return report


def write_book(config: ReportConfig, workdir: Path) -> dict[str, Any]:
    """Several reports on one page: report.html, report.md and, last, report.json."""
    whole = book.load(config) | {"commit": commit()}
    write_text(workdir / "report.html", book.page(whole))
    write_text(workdir / "report.md", book.text(whole))
    write_json(workdir / "report.json", whole)
    print(book.text(whole))
    return whole


def experiment(config: ReportConfig) -> tuple[dict[str, Any], Curves, list[samples.Sample]]:
    """The report, the training curves and sample responses of one experiment."""
    arms = load_arms(config)
    mixed = check_protocols(config, arms)
    report: dict[str, Any] = {
        "kind": "experiment",
        "title": config.title,
        "seed": config.seed,
        "base": config.base,
        "ceiling": ceiling_of(config),
    }
    report |= compare(config, arms)
    scores = {arm: rows[AVERAGE]["pass_at_1"] for arm, rows in report["arms"].items()}
    report["ledger"] = routes.ledger(config, scores if len(arms[config.base]) == 1 else None)
    report["decoding"] = {benchmark: found.result["decoding"] for benchmark, found in arms[config.base].items()}
    report["mixed"] = mixed
    curves = Curves()
    for arm, workdirs in config.routes.items():
        for title, points in routes.curves(workdirs).items():
            curves.setdefault(title, {})[arm] = points
    return report, curves, samples.pick(arms)


def write(
    report: dict[str, Any],
    curves: Curves,
    shown: list[samples.Sample],
    workdir: Path,
) -> None:
    """report.html, report.md and, last, report.json."""
    colours = {arm: plots.colour(report, arm) for arm in report["arms"]}
    page = html.render_html(report, plots.all_plots(report, curves), shown, colours)
    write_text(workdir / "report.html", page)
    write_text(workdir / "report.md", tables.render_markdown(report))
    write_json(workdir / "report.json", report)


if __name__ == "__main__":
    runtime.main_exit("report", main, CONFIG)
