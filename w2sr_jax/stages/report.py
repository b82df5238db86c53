"""Compare the arms of an experiment: Pass@1, RGR, free baselines, claims and costs, as JSON, Markdown and one page.

Five forms. config.arms names the evaluate workdirs of one experiment (one seed); config.reports names the workdirs of
several such reports, and the summary over seeds is written; config.rows holds published numbers, to which
--config.student_row adds a student's; config.sections puts finished reports on one page;
config.traces is the trace lab alone, which an experiment has for its config.trace_sets. All write report.json,
report.md, report.html and its tables as CSV and LaTeX.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from w2sr_jax.core import runtime
from w2sr_jax.core.config import DataConfig, validate
from w2sr_jax.core.cost import StageClock, append_ledger
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import write_json, write_text
from w2sr_jax.core.mesh import local_mesh_or_none
from w2sr_jax.core.metrics import Progress
from w2sr_jax.core.records import Trace
from w2sr_jax.core.revision import commit
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.data.examples import iter_traces, read_traces
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.model import hf
from w2sr_jax.model.params import param_specs
from w2sr_jax.reporting import book, lab, lab_page, page, published, routes, samples, sizes, summary, tables
from w2sr_jax.reporting.compare import AVERAGE, compare
from w2sr_jax.reporting.export import write_page
from w2sr_jax.reporting.load import ceiling_of, check_protocols, load_arms, load_evaluation
from w2sr_jax.traces import grades, surprise
from w2sr_jax.traces import lab as lab_traces

CONFIG = ReportConfig


def main(config: ReportConfig, workdir: str) -> dict[str, Any]:
    """Writes the report and prints its main tables.

    Returns:
        What report.json holds.

    Raises:
        W2SRError: an input is missing or malformed, or the results cannot be compared.
    """
    validate(config)
    with StageClock(workdir, "report", device_kind="cpu") as clock:
        shown = list[samples.Sample]()
        if config.sections:
            report = write_book(config, Path(workdir))
            append_ledger(workdir, clock.line())
            return report
        if config.reports:
            report = summary.summarise(config, summary.load_reports(config))
        elif config.traces:
            report = traces_report(config, clock.tick)
            append_ledger(workdir, clock.line())
            write_traces(report, Path(workdir))
            return report
        elif config.rows:
            report = published.compare_rows(config)
        else:
            report, shown = experiment(config, clock.tick)
        report["commit"] = commit()
        write(report, shown, Path(workdir))
        append_ledger(workdir, clock.line())
    print(tables.summary_text(report))
    return report


def write_book(config: ReportConfig, workdir: Path) -> dict[str, Any]:
    """Several reports on one page: report.html, report.md and, last, report.json."""
    whole = book.load(config) | {"commit": commit()}
    write_page(workdir, whole["title"], book.sections(whole), foot=foot(whole))
    write_text(workdir / "report.md", book.text(whole))
    write_json(workdir / "report.json", whole)
    print(book.text(whole))
    return whole


def traces_report(config: ReportConfig, tick: Callable[[], None]) -> dict[str, Any]:
    """report.json of the trace lab alone."""
    sets = named_sets(config.traces)
    results = {name: load_evaluation(place).result for name, place in zip(sets, config.students) if place}
    gains = {name: {"value": of["pass_at_1"], "interval": list(of["interval"])} for name, of in results.items()}
    return {
        "kind": "traces",
        "title": config.title,
        "commit": commit(),
        "trace_lab": trace_lab(config, sets, gains, "the student's Pass@1, %", tick),
    }


def named_sets(paths: tuple[str, ...]) -> dict[str, str]:
    """{name: path} of NAME=PATH, or of paths that get the last parts of themselves that tell them apart.

    A path that exists is one, whatever characters it has.

    Raises:
        UsageError: two have one name.
    """
    found: dict[str, str] = {}
    for text in paths:
        before, equals, after = text.partition("=")
        name, path = (before, after) if equals and not os.path.exists(text) else ("", text)
        parts = Path(path.removesuffix(".jsonl")).parts
        name = name or next((n for i in range(1, len(parts) + 1) if (n := "/".join(parts[-i:])) not in found), path)
        if name in found:
            raise UsageError(f"config.traces: two sets are called {name!r}; write NAME=PATH")
        found[name] = path
    return found


def trace_lab(
    config: ReportConfig, sets: Mapping[str, str], gains: Mapping[str, lab.Gain], gain_is: str, tick: Callable[[], None]
) -> dict[str, Any]:
    """What is found in each set, and how it goes with what the students gained.

    Args:
        gains: of the students, by set; `gain_is` says of what kind.
    """
    problems = {p.id: p for p in load_problems(config.problems)} if config.problems else {}
    levels = {p.id: p.level for p in problems.values() if p.level}
    found = {}
    for name, path in sets.items():
        file = lab_traces.trace_file(path)
        with open(file, "rb") as lines:
            total = sum(1 for _ in lines)
        with Progress(total, f"trace lab, {name}", "trace") as progress:
            traces = grades.graded(_ticking(file, progress, tick), problems)
            found[name] = lab_traces.study(traces, levels, surprisals(config, file, tick), name)
    return {"sets": found, "gains": dict(gains), "gain_is": gain_is, "go_with": lab.go_with(found, gains)}


def _ticking(file: Path, progress: Progress, tick: Callable[[], None]) -> Iterator[Trace]:
    for number, (_, trace) in enumerate(iter_traces(file), 1):
        yield trace
        progress.update(number)
        tick()


def surprisals(config: ReportConfig, file: Path, tick: Callable[[], None]) -> dict[lab_traces.Key, float] | None:
    """How surprising config.score_model finds the traces of a file; None without one. They are all held in memory."""
    if not config.score_model:
        return None
    data = DataConfig(
        problems=config.problems,
        traces=str(file),
        template=config.score_template,
        max_length=config.score_max_length,
        batch_size=config.score_batch,
    )
    model = hf.resolve(config.score_model)
    mesh = local_mesh_or_none()  # of several processes the first one reports, while the others wait
    scores, _ = surprise.score(model, read_traces(str(file)), data, config.score_dtype, 512, mesh, tick)
    return {(score.teacher, score.problem_id, score.sample): score.surprisal for score in scores}


def write_traces(report: dict[str, Any], workdir: Path) -> None:
    """The trace lab's report.html, report.md and, last, report.json."""
    about = f"{len(report['trace_lab']['sets'])} sets of traces"
    write_page(workdir, report["title"], lab_page.sections(report), about, foot(report))
    write_text(workdir / "report.md", lab_page.text(report))
    write_json(workdir / "report.json", report)
    print(lab_page.text(report))


def experiment(config: ReportConfig, tick: Callable[[], None]) -> tuple[dict[str, Any], list[samples.Sample]]:
    """The report and sample responses of one experiment."""
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
    report["ledger"] = routes.ledger(config, targets(report) if len(arms[config.base]) == 1 else {})
    report["decoding"] = {benchmark: found.result["decoding"] for benchmark, found in arms[config.base].items()}
    report["mixed"] = mixed
    report["curves"] = routes.all_curves(config)
    report["teachers"] = teachers(config)
    report["published"] = config.published
    if config.trace_sets:
        gains = {name: report["gains"][name] for name in config.trace_sets if name in report["gains"]}
        report["trace_lab"] = trace_lab(config, config.trace_sets, gains, "the student's gain, points", tick)
        report["trace_sizes"] = {arm: size for arm, size in sizes.of_lab(report["trace_lab"]).items() if arm in arms}
    return report, samples.pick(arms)


def targets(report: dict[str, Any]) -> dict[str, float]:
    """Pass@1 of the students that are shown to beat the base; what does not, GRPO equals before its first step."""
    better = [arm for arm, gain in report["gains"].items() if gain["interval"][0] > 0]
    return {arm: report["arms"][arm][AVERAGE]["pass_at_1"] for arm in better}


def teachers(config: ReportConfig) -> dict[str, dict[str, Any]]:
    """{arm: {"model": name, "parameters": how many, None if that is not known}} of config.teachers."""
    return {arm: {"model": Path(model).name, "parameters": parameters(model)} for arm, model in config.teachers.items()}


def parameters(model: str) -> float | None:
    """Of a model's directory or a training workdir by its config.json, else by the size in its name (`Qwen2.5-7B`)."""
    directory = next((path for path in (Path(model) / "export", Path(model)) if (path / "config.json").exists()), None)
    if directory is not None:
        outer, layer = param_specs(hf.load_config(directory))
        return float(sum(math.prod(spec.shape) for spec in (*outer.values(), *layer.values())))
    sizes = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z])", model)
    return float(sizes[-1][0]) * {"B": 1e9, "M": 1e6}[sizes[-1][1]] if sizes else None


def write(report: dict[str, Any], shown: list[samples.Sample], workdir: Path) -> None:
    """report.html, report.md and, last, report.json."""
    write_page(workdir, report["title"], page.sections(report, shown), page.origin(report), foot(report))
    write_text(workdir / "report.md", tables.render_markdown(report))
    write_json(workdir / "report.json", report)


def foot(report: dict[str, Any]) -> str:
    return f"Made by w2sr report, commit {(report['commit'] or 'unknown')[:10]}. This page asks nothing of the network."


if __name__ == "__main__":
    runtime.main_exit("report", main, CONFIG)
