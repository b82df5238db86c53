"""Traces graded and split: all.jsonl, correct.jsonl, incorrect.jsonl (W2SR, W2SR-P, W2SR-N) and counts.json.

With --config.contamination the traces are also searched for problems of those benchmarks, by word n-grams: counted in
counts.json, listed in contaminated.jsonl, and left out with --config.contamination_gate.

The same inputs, config and seed give the same files to the byte. Outputs are replaced atomically and counts.json is
written last, so a killed run is simply run again.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import sha256_file, sha256_records, write_json, write_jsonl
from w2sr_jax.core.metrics import Progress
from w2sr_jax.core.records import GradedTrace, Overlap, Problem, Trace
from w2sr_jax.core.trace_config import HYGIENE_FLAGS, FilterConfig
from w2sr_jax.data import benchmarks, contamination
from w2sr_jax.data.examples import read_traces
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.grading import hygiene
from w2sr_jax.grading.grade import GRADER_VERSION, check_verifier
from w2sr_jax.grading.pool import GraderPool

CONFIG = FilterConfig
SUBSETS = ("all", "correct", "incorrect")


def main(config: FilterConfig, workdir: str) -> dict[str, Any]:
    """Writes the three subsets and counts.json.

    Returns:
        the counts.
    """
    validate(config)
    root = Path(workdir)
    problems = {problem.id: problem for problem in load_problems(config.problems)}
    traces = read_traces(config.traces)
    _check(config, problems, traces)
    with cost.StageClock(workdir, "filter", device_kind="cpu") as clock:
        graded, undecided = _grade(config, problems, traces, clock)
        overlaps, found = _contamination(config, problems, traces)
        bad = {(o.problem_id, o.sample) for o in overlaps} if config.contamination_gate else set()
        answered = [t for t in graded if t.finish_reason != "failed"]  # nothing can be learnt from the others
        kept = [t for t in answered if not set(t.hygiene) & set(config.gates) and (t.problem_id, t.sample) not in bad]
        before = {
            "all": kept,
            "correct": [t for t in kept if t.correct],
            "incorrect": [t for t in kept if not t.correct],
        }
        subsets = _draw(config, before)
        wanted = {name: config.max_traces or len(subsets[name]) for name in SUBSETS}
        for name in SUBSETS:
            if len(subsets[name]) < wanted[name]:
                logging.warning("%s.jsonl: %d traces, %d were wanted", name, len(subsets[name]), wanted[name])
        for name in SUBSETS:
            write_jsonl(root / f"{name}.jsonl", subsets[name])
        counts: dict[str, Any] = {
            "grader": GRADER_VERSION,
            "problems": len(problems),
            "problems_answered": len({t.problem_id for t in traces}),
            "problems_sha256": sha256_records(problems.values()),
            "traces_sha256": sha256_file(config.traces),
            "graded": _by_correctness(graded),
            "undecided": undecided,
            "hygiene": {f: _by_correctness([t for t in graded if f in t.hygiene]) for f in HYGIENE_FLAGS},
            "box_disagreement": _by_correctness([t for t in graded if hygiene.boxes_disagree(t.response)]),
            "gates": {f: _by_correctness([t for t in graded if f in t.hygiene]) for f in config.gates},
            "gated": len(answered) - len(kept),
            "failed": len(graded) - len(answered),
            "match_size": config.match_size,
            "max_traces": config.max_traces,
            "seed": config.seed,
            "size_after_gates": {name: len(before[name]) for name in SUBSETS},
            "wanted": wanted,
            "size": {name: len(subsets[name]) for name in SUBSETS},
            "sha256": {f"{name}.jsonl": sha256_file(root / f"{name}.jsonl") for name in SUBSETS},
        }
        if config.contamination:
            write_jsonl(root / "contaminated.jsonl", overlaps)
            counts["contamination"] = found
        write_json(root / "counts.json", counts)
        tokens = sum(t.response_tokens for t in traces)
        cost.append_ledger(workdir, clock.line(tokens_in=tokens, price=config.price))
    sizes = ", ".join(f"{counts['size'][name]} {name}" for name in SUBSETS)
    logging.info("%d traces graded, %d gated; written: %s", len(graded), counts["gated"], sizes)
    return counts


def _check(config: FilterConfig, problems: dict[str, Problem], traces: list[Trace]) -> None:
    """Refuses traces that do not belong to the problems, before anything is graded."""
    if not traces:
        raise W2SRError(f"{config.traces}: holds no traces")
    for number, trace in enumerate(traces, 1):
        if trace.problem_id not in problems:
            raise W2SRError(
                f"{config.traces}: trace {number}: problem_id {trace.problem_id!r} is not in {config.problems}; "
                "filter needs the problems that the traces were distilled from"
            )
    (key, times), *_ = Counter((t.problem_id, t.sample) for t in traces).most_common(1)
    if times > 1:
        raise W2SRError(f"{config.traces}: sample {key[1]} of problem {key[0]!r} occurs {times} times")
    for verifier in {problems[t.problem_id].verifier for t in traces}:
        check_verifier(verifier)


def _grade(
    config: FilterConfig, problems: dict[str, Problem], traces: list[Trace], clock: cost.StageClock
) -> tuple[list[GradedTrace], dict[str, int]]:
    """The traces with their grades, in order; and how often the grader could not decide, by reason."""
    answered = [problems[t.problem_id] for t in traces]
    with (
        GraderPool(config.workers, config.deadline_s) as pool,
        Progress(len(traces), "filter", "trace") as progress,
    ):

        def graded_so_far(done: int) -> None:
            progress.update(done)
            clock.tick()

        grades = pool.grade_many(
            [(t.response, p.answer) for t, p in zip(traces, answered)],
            verifiers=[p.verifier for p in answered],
            on_graded=graded_so_far,
        )
    graded = [
        GradedTrace(
            problem_id=trace.problem_id,
            sample=trace.sample,
            response=trace.response,
            response_tokens=trace.response_tokens,
            finish_reason=trace.finish_reason,
            teacher=trace.teacher,
            extracted=grade.extracted,
            correct=grade.correct,
            grader=GRADER_VERSION,
            hygiene=hygiene.flags(trace.response, trace.finish_reason),
        )
        for trace, grade in zip(traces, grades)
    ]
    return graded, dict(sorted(Counter(g.error for g in grades if g.error).items()))


def _contamination(
    config: FilterConfig, problems: dict[str, Problem], traces: list[Trace]
) -> tuple[list[Overlap], dict[str, Any]]:
    """The traces that overlap with a benchmark, and how many they are; nothing where no benchmark is named."""
    if not config.contamination:
        return [], {}
    named = [(benchmarks.display_name(source), load_problems(source)) for source in config.contamination]
    index = contamination.Index(named, config.contamination_words)
    overlaps = [found for trace in traces if (found := index.overlap(problems[trace.problem_id], trace))]
    by_benchmark = Counter(o.benchmark for o in overlaps)
    return overlaps, {
        "words": config.contamination_words,
        "benchmarks": {name: {"problems": len(rows), "traces": by_benchmark[name]} for name, rows in named},
        "problems_compared_whole": index.short,
        "traces": len(overlaps),
        "by_problem": sum(o.part == "problem" for o in overlaps),
        "gate": config.contamination_gate,
    }


def _draw(config: FilterConfig, subsets: dict[str, list[GradedTrace]]) -> dict[str, list[GradedTrace]]:
    """Each subset drawn down to the matched size and to max_traces, in the traces' order.

    With match_size all three subsets get the size of the smaller of correct and incorrect, so that W2SR, W2SR-P and
    W2SR-N learn from equally many traces.
    """
    limit = config.max_traces or len(subsets["all"])
    if config.match_size:
        limit = min(limit, len(subsets["correct"]), len(subsets["incorrect"]))
        if limit == 0:
            raise W2SRError(
                f"config.match_size: cannot match {len(subsets['correct'])} correct and "
                f"{len(subsets['incorrect'])} incorrect traces; more traces or other gates are needed"
            )
    drawn = {}
    for name, traces in subsets.items():
        chosen = random.Random(f"{config.seed}:{name}").sample(range(len(traces)), min(limit, len(traces)))
        drawn[name] = [traces[i] for i in sorted(chosen)]
    return drawn


def _by_correctness(traces: list[GradedTrace]) -> dict[str, int]:
    correct = sum(t.correct for t in traces)
    return {"all": len(traces), "correct": correct, "incorrect": len(traces) - correct}


if __name__ == "__main__":
    runtime.main_exit("filter", main, CONFIG)
