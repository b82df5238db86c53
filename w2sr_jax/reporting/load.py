"""Evaluate workdirs read and checked: what may be compared with what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2sr_jax.core.config import flatten
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json, read_jsonl
from w2sr_jax.core.records import Prediction, RecordError
from w2sr_jax.core.stage_config import ReportConfig

RESULT_FIELDS = ("benchmark", "k", "pass_at_1", "interval", "stop_rate", "grader", "decoding")


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """One arm on one benchmark."""

    result: dict[str, Any]  # result.json
    predictions: list[Prediction]
    problem_ids: tuple[str, ...]  # sorted
    scores_P: np.ndarray  # share of right samples, in the order of problem_ids


Arms = dict[str, dict[str, Evaluation]]  # arm -> benchmark -> evaluation, both in the order of the config


def load_evaluation(workdir: str | Path) -> Evaluation:
    """Reads result.json and predictions.jsonl of an evaluate workdir.

    Raises:
        RecordError: a file is missing, malformed, or the two disagree.
    """
    path = Path(workdir) / "result.json"
    result = read_json(path)
    for field in RESULT_FIELDS:
        if not isinstance(result, dict) or field not in result:
            raise RecordError(f"{path}: {field}: missing")
    predictions = read_jsonl(Path(workdir) / "predictions.jsonl", Prediction)
    if not predictions:
        raise RecordError(f"{Path(workdir) / 'predictions.jsonl'}: holds no predictions")
    by_problem: dict[str, list[bool]] = {}
    for prediction in predictions:
        by_problem.setdefault(prediction.problem_id, []).append(prediction.correct)
    ids = tuple(sorted(by_problem))
    scores_P = np.array([np.mean(by_problem[i]) for i in ids])
    if abs(scores_P.mean() - result["pass_at_1"]) > 1e-6:
        raise RecordError(
            f"{path}: pass_at_1: is {result['pass_at_1']}, but predictions.jsonl gives {scores_P.mean():.6f}; "
            "evaluate again"
        )
    return Evaluation(result, predictions, ids, scores_P)


def load_arms(config: ReportConfig) -> Arms:
    """Reads every arm and checks that the config's names exist and that all arms answered the same problems.

    Raises:
        UsageError: naming the key of the config.
        W2SRError: naming the arms whose problems differ.
    """
    _check_names(config)
    arms: Arms = {}
    for arm, workdirs in config.arms.items():
        arms[arm] = {}
        for workdir in workdirs:
            evaluation = load_evaluation(workdir)
            benchmark = evaluation.result["benchmark"]
            if benchmark in arms[arm] or benchmark == "average":
                raise UsageError(f"config.arms: {arm!r} has two results named {benchmark!r} ({workdir})")
            arms[arm][benchmark] = evaluation
    base = arms[config.base]
    for arm, evaluations in arms.items():
        if differ := sorted(evaluations.keys() ^ base.keys()):
            raise UsageError(f"config.arms: {arm!r} and {config.base!r} differ in benchmarks: {', '.join(differ)}")
        for benchmark, evaluation in evaluations.items():
            if odd := sorted(set(evaluation.problem_ids) ^ set(base[benchmark].problem_ids)):
                raise W2SRError(
                    f"{benchmark}: arms {config.base!r} and {arm!r} did not answer the same problems: "
                    f"{len(odd)} differ, {odd[0]!r} first; evaluate both on one file"
                )
        arms[arm] = {benchmark: evaluations[benchmark] for benchmark in base}
    return arms


def ceiling_of(config: ReportConfig) -> str | None:
    """The ceiling's arm; None for an experiment without one: config.ceiling is "", or the default that no arm has."""
    left_alone = config.ceiling in ("", ReportConfig().ceiling)
    return None if left_alone and config.ceiling not in (config.arms or config.rows) else config.ceiling


def _check_names(config: ReportConfig) -> None:
    named = [("config.base", config.base)]
    if ceiling_of(config) is not None:
        named.append(("config.ceiling", config.ceiling))
    named += [("config.baselines", arm) for arm in config.baselines]
    named += [("config.routes", arm) for arm in config.routes]
    named += [(f"config.claims[{sentence!r}]", arm) for sentence, pair in config.claims.items() for arm in pair]
    for key, arm in named:
        if arm not in config.arms:
            raise UsageError(f"{key}: {arm!r} is not among config.arms ({', '.join(config.arms)})")
    if config.base in config.baselines or config.ceiling in config.baselines:
        raise UsageError("config.baselines: base and ceiling are arms of their own, leave them out")
    for arm, workdirs in config.arms.items():
        if not workdirs:
            raise UsageError(f"config.arms: {arm!r} has no evaluate workdir")


def protocol_differences(config: ReportConfig, arms: Arms) -> list[str]:
    """Sentences that name each arm whose decoding protocol or grader is not the base's, with the keys.

    A baseline (a forced mode) may decode in its own way, but must be graded alike on the same problems.
    """
    found = []
    for benchmark, reference in arms[config.base].items():
        expected = _protocol(reference.result)
        for arm in arms:
            actual = _protocol(arms[arm][benchmark].result)
            keys = sorted(k for k in expected.keys() | actual.keys() if expected.get(k) != actual.get(k))
            if arm in config.baselines:
                keys = [k for k in keys if k in ("problems_sha256", "grader")]
            if keys:
                shown = ", ".join(f"{k} ({_short(expected.get(k))} / {_short(actual.get(k))})" for k in keys)
                found.append(f"{benchmark}: {config.base!r} / {arm!r} differ in {shown}")
    return found


def check_protocols(config: ReportConfig, arms: Arms) -> list[str]:
    """The differences, if the config allows them.

    Raises:
        W2SRError: results were made under different protocols.
    """
    found = protocol_differences(config, arms)
    if found and not config.allow_mixed_decoding:
        raise W2SRError(
            f"config.arms: results of different decoding protocols cannot be compared: {'; '.join(found)}. "
            "Evaluate them alike, or set --config.allow_mixed_decoding=True"
        )
    return found


def _protocol(result: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(result["decoding"]) | {"grader": result["grader"]}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
