"""Several seeds of one experiment put together: means, spread, and which claims hold how often.

Seeds are the independent units here: intervals are Student's t over seeds (Fieller's, for the ratio RGR), so they
hold what differs between seeds: initialisation, data order, traces, and the held-out problems where each seed draws
its own. Where all seeds share one benchmark file, the choice of its problems is not in the interval. Nothing is known
better than the sampling error of the problems allows: three seeds that came out alike by chance prove nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2sr_jax.core.config import flatten
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json
from w2sr_jax.core.records import RecordError
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.grading.statistics import fieller_interval, mean_error, t_interval, t_p
from w2sr_jax.reporting import lab, sizes
from w2sr_jax.reporting.compare import NO_CEILING, verdict
from w2sr_jax.reporting.multiplicity import corrected

Report = dict[str, Any]


def load_reports(config: ReportConfig) -> list[Report]:
    """Reads report.json of every seed.

    Raises:
        UsageError: fewer than two, a seed twice, or reports of different experiments.
    """
    if len(config.reports) < 2:
        raise UsageError("config.reports: a summary needs the reports of at least two seeds")
    reports: list[Report] = []
    for workdir in config.reports:
        path = Path(workdir) / "report.json"
        report = read_json(path)
        if not isinstance(report, dict) or report.get("kind") != "experiment":
            raise RecordError(f"{path}: kind: expected the report of one experiment")
        reports.append(report)
    first = reports[0]
    for workdir, report in zip(config.reports[1:], reports[1:], strict=True):
        for key in ("arms", "claims", "baselines"):
            if odd := sorted(report[key].keys() ^ first[key].keys()):
                raise UsageError(f"config.reports: {workdir} and {config.reports[0]} differ in {key}: {odd[0]!r}")
        if (report["base"], report["ceiling"]) != (first["base"], first["ceiling"]):
            raise UsageError(f"config.reports: {workdir} and {config.reports[0]} differ in base or ceiling")
        if odd := sorted(report["arms"][report["base"]].keys() ^ first["arms"][first["base"]].keys()):
            raise UsageError(f"config.reports: {workdir} and {config.reports[0]} differ in benchmarks: {odd[0]!r}")
        odd = _differing_protocol(first["decoding"], report["decoding"])
        if odd and not config.allow_mixed_decoding:
            raise W2SRError(
                f"config.reports: {workdir} and {config.reports[0]} differ in decoding: {', '.join(odd)}; "
                "evaluate alike, or set --config.allow_mixed_decoding=True"
            )
    seeds = [report["seed"] for report in reports]
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise UsageError(f"config.reports: seed {twice[0]} occurs twice; give each experiment its own config.seed")
    return reports


def _differing_protocol(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys, the hash of the problems apart: seeds may draw their own problems."""
    a, b = flatten(one), flatten(other)
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and not k.endswith("problems_sha256"))


def summarise(config: ReportConfig, reports: list[Report]) -> Report:
    """report.json over seeds: the same keys as one experiment's, with means, sd and the values of each seed."""
    first = reports[0]
    arms = {arm: {b: _arm(reports, arm, b) for b in first["arms"][arm]} for arm in first["arms"]}
    return {
        "kind": "summary",
        "title": config.title,
        "seed": None,
        "seeds": [report["seed"] for report in reports],
        "base": first["base"],
        "ceiling": first["ceiling"],
        "arms": arms,
        "rgr": {arm: {b: _rgr(reports, arm, b, _trained) for b in rows} for arm, rows in first["rgr"].items()},
        "baselines": {
            arm: {
                b: {
                    "pass_at_1": arms[arm][b]["pass_at_1"],
                    "sd": arms[arm][b]["sd"],
                    "interval": arms[arm][b]["interval"],
                    "rgr": _rgr(reports, arm, b, _free),
                }
                for b in rows
            }
            for arm, rows in first["baselines"].items()
        },
        "claims": corrected({sentence: _claim(reports, sentence) for sentence in first["claims"]}),
        "hygiene": {arm: _sums([r["hygiene"][arm] for r in reports]) for arm in first["hygiene"]},
        "scoring": {arm: _scoring(reports, arm) for arm in first["arms"]},
        "ledger": _ledger(reports),
        "curves": _curves(reports),
        "teachers": first.get("teachers", {}),
        "published": first.get("published", ""),
        "trace_lab": _trace_lab(reports),
        "trace_sizes": sizes.of_seeds(reports),
        "decoding": first["decoding"],
        "mixed": sorted({line for report in reports for line in report["mixed"]}),
    }


def _arm(reports: list[Report], arm: str, benchmark: str) -> dict[str, Any]:
    rows = [report["arms"][arm][benchmark] for report in reports]
    values = [row["pass_at_1"] for row in rows]
    low, high = t_interval(values, least_error=mean_error([row["interval"] for row in rows]))
    return {
        "pass_at_1": statistics.fmean(values),
        "sd": statistics.stdev(values),
        "interval": [max(0.0, low), min(1.0, high)],
        "n": min(row["n"] for row in rows),  # of a seed: all may have been asked the same ones
        "stop_rate": statistics.fmean(row["stop_rate"] for row in rows),
        "per_seed": values,
    }


def _trained(report: Report, arm: str, benchmark: str) -> dict[str, Any]:
    return report["rgr"][arm][benchmark]


def _free(report: Report, arm: str, benchmark: str) -> dict[str, Any]:
    return report["baselines"][arm][benchmark]["rgr"]


def _rgr(
    reports: list[Report], arm: str, benchmark: str, of_seed: Callable[[Report, str, str], dict[str, Any]]
) -> dict[str, Any]:
    """RGR of the mean accuracies, with Fieller's interval over seeds, and each seed's own."""

    def scores(which: str) -> list[float]:
        return [report["arms"][which][benchmark]["pass_at_1"] for report in reports]

    if reports[0]["ceiling"] is None:
        return {"undefined": NO_CEILING, "per_seed": [None] * len(reports)}
    base, ceiling = scores(reports[0]["base"]), scores(reports[0]["ceiling"])
    cells = [of_seed(report, arm, benchmark) for report in reports]
    per_seed = [cell.get("value") for cell in cells]
    by_seed = [cell.get("sampling") or _unpaired(report, arm, benchmark) for cell, report in zip(cells, reports)]
    sampling = [sum(column) / len(reports) ** 2 for column in zip(*by_seed)]
    gains = [a - b for a, b in zip(scores(arm), base, strict=True)]
    gaps = [c - b for c, b in zip(ceiling, base, strict=True)]
    low, high = t_interval(gaps, least_error=sampling[2] ** 0.5)
    if low <= 0:
        reason = (
            f"over {len(reports)} seeds the ceiling {reports[0]['ceiling']!r} does not beat the base "
            f"{reports[0]['base']!r} beyond noise: {statistics.fmean(gaps):+.3f}, "
            f"95 % interval [{low:+.3f}, {high:+.3f}]"
        )
        return {"undefined": reason, "per_seed": per_seed}
    value = statistics.fmean(gains) / statistics.fmean(gaps)
    interval = fieller_interval(gains, gaps, least=(sampling[0], sampling[1], sampling[2]))
    return {"value": value, "interval": list(interval), "per_seed": per_seed}


def _unpaired(report: Report, arm: str, benchmark: str) -> list[float]:
    """`Comparison.sampling` for a report of old, which does not tell: as if arms had not answered the same problems."""
    named = (arm, report["base"], report["ceiling"])
    student, base, ceiling = (mean_error([report["arms"][one][benchmark]["interval"]]) ** 2 for one in named)
    return [student + base, base, ceiling + base]


def _claim(reports: list[Report], sentence: str) -> dict[str, Any]:
    """The difference over seeds, known no better than the problems of each seed allow, however alike seeds came out."""
    rows = [report["claims"][sentence] for report in reports]
    differences = [row["difference"] for row in rows]
    sampling = mean_error([row["interval"] for row in rows])
    interval = t_interval(differences, least_error=sampling)
    return {
        "higher": rows[0]["higher"],
        "lower": rows[0]["lower"],
        "difference": statistics.fmean(differences),
        "interval": list(interval),
        "p": t_p(differences, sampling),
        "holds": verdict(interval),
        "per_seed": [row["holds"] for row in rows],
        "seeds_holding": sum(row["holds"] is True for row in rows),
        "seeds": len(rows),
    }


def _ledger(reports: list[Report]) -> dict[str, Any]:
    """Mean cost of each route over seeds; mean, least and greatest of each ratio that every seed has."""
    ledgers = [report["ledger"] for report in reports]
    first = ledgers[0]
    ratios: dict[str, dict[str, float | None]] = {}
    ranges: dict[str, dict[str, list[float] | None]] = {}
    for arm, by_definition in first["ratios"].items():
        ratios[arm], ranges[arm] = {}, {}
        for key in by_definition:
            values = [ledger["ratios"].get(arm, {}).get(key) for ledger in ledgers]
            known = [value for value in values if value is not None]
            everywhere = len(known) == len(ledgers)  # a mean of some seeds would be of the lucky ones
            ratios[arm][key] = statistics.fmean(known) if everywhere else None
            ranges[arm][key] = [min(known), max(known)] if everywhere else None
    teachers = [ledger["teacher"] for ledger in ledgers]
    return {
        "routes": {
            arm: {"stages": [], "total": _mean_total([ledger["routes"][arm]["total"] for ledger in ledgers])}
            for arm in first["routes"]
            if all(arm in ledger["routes"] for ledger in ledgers)
        },
        "teacher": {"stages": [], "total": _mean_total([t["total"] for t in teachers])} if all(teachers) else None,
        "with_teacher": {
            arm: statistics.fmean(ledger["with_teacher"][arm] for ledger in ledgers)
            for arm in first.get("with_teacher", {})
            if all(arm in ledger.get("with_teacher", {}) for ledger in ledgers)
        },
        "definitions": first["definitions"],
        "ratios": ratios,
        "ratio_ranges": ranges,
    }


def _trace_lab(reports: list[Report]) -> Report | None:
    labs = [report["trace_lab"] for report in reports if report.get("trace_lab")]
    return lab.pooled(labs) if len(labs) == len(reports) else None


def _curves(reports: list[Report]) -> dict[str, dict[str, Any]]:
    """Means over seeds at the steps that every seed has; runs that stopped early end the curve."""
    found: dict[str, dict[str, Any]] = {}
    for title, curve in reports[0].get("curves", {}).items():
        arms = {}
        for arm in curve["arms"]:
            of_seeds = [
                dict(report.get("curves", {}).get(title, {"arms": {}})["arms"].get(arm, [])) for report in reports
            ]
            steps = [step for step in of_seeds[0] if all(step in seed for seed in of_seeds)]
            arms[arm] = [[step, statistics.fmean(seed[step] for seed in of_seeds)] for step in steps]
        found[title] = {"unit": curve["unit"], "arms": {arm: points for arm, points in arms.items() if points}}
    return found


def _mean_total(totals: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = sorted({kind for row in totals for kind in row["device_kinds"]})
    numbers = [{k: v for k, v in row.items() if k != "device_kinds"} for row in totals]
    means = {k: statistics.fmean(r[k] for r in numbers) if all(r[k] is not None for r in numbers) else None
             for k in numbers[0]}  # fmt: skip
    return {"device_kinds": kinds} | means


def _scoring(reports: list[Report], arm: str) -> dict[str, dict[str, Any]]:
    """Means over seeds of the benchmarks that every seed scored by every rule; disagreements are summed."""
    found = [report.get("scoring", {}).get(arm, {}) for report in reports]
    return {
        benchmark: {
            key: _sums([rows[benchmark][key] for rows in found])
            if key == "disagreements"
            else statistics.fmean(rows[benchmark][key] for rows in found)
            for key in row
        }
        for benchmark, row in found[0].items()
        if all(benchmark in rows for rows in found)
    }


def _sums(rows: list[dict[str, int]]) -> dict[str, int]:
    return {key: sum(row[key] for row in rows) for key in rows[0]}
