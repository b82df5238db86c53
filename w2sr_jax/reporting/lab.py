"""Trace sets compared: their features, how these go with what students gained, and several seeds put together.

`traces/lab.py` counts; here is what the counts say. A set that is called like an arm is what its student learned from.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from w2sr_jax.grading.statistics import Interval, mean_error, spearman, t_interval, wilson_interval

Study = dict[str, Any]  # of one set, see traces/lab.py
Value = tuple[float, Interval]
Gain = dict[str, Any]  # {"value": a share, "interval": [low, high]}
FEWEST_SETS = 6  # below that hardly any order of ranks is rare


def features(study: Study) -> dict[str, Value | None]:
    """What a set is like, each with its 95 % interval; None where it is not known."""
    count = study["traces"]
    mean = {name: of and (of["mean"], (of["interval"][0], of["interval"][1]))
            for name in ("tokens", "characters", "steps") for of in [study[name]]}  # fmt: skip
    surprisal = study["surprisal"]
    return {
        "tokens": mean["tokens"],
        "characters": mean["characters"],
        "steps": mean["steps"],
        "reflection, %": _share(study["reflective"], count),
        "any flag, %": _share(study["unhealthy"], count),
        "near-duplicates, %": _share(study["near_duplicates"]["traces"], count),
        "right, %": _share(study["right"], study["graded"]) if study["graded"] else None,
        "perplexity": None
        if surprisal is None
        else (math.exp(surprisal["mean"]), (math.exp(surprisal["interval"][0]), math.exp(surprisal["interval"][1]))),
    }


def _share(part: int, whole: int) -> Value:
    low, high = wilson_interval(part, whole)
    return 100 * part / whole, (100 * low, 100 * high)


def go_with(sets: Mapping[str, Study], gains: Mapping[str, Gain]) -> dict[str, dict[str, Any]]:
    """Rank correlation of each feature with the students' gain, over the sets that have a student.

    Returns:
        {feature: {"rho", "interval", "sets"}, or {"too_few": sets}, or {"constant": value}}.
    """
    found: dict[str, dict[str, Any]] = {}
    of_sets = {name: features(sets[name]) for name in gains if name in sets}
    for feature in next(iter(of_sets.values()), {}):
        known = [(of[feature], gains[name]["value"]) for name, of in of_sets.items() if of[feature] is not None]
        values = [value[0] for value, _ in known if value is not None]
        if not values:
            continue
        if len(values) < FEWEST_SETS:
            found[feature] = {"too_few": len(values)}
        elif len(set(values)) == 1 or len({gain for _, gain in known}) == 1:
            found[feature] = {"constant": values[0]}
        else:
            rho, interval = spearman(values, [gain for _, gain in known])
            found[feature] = {"rho": rho, "interval": list(interval), "sets": len(values)}
    return found


def pooled(labs: list[dict[str, Any]]) -> dict[str, Any]:
    """The labs of several seeds as one: counts are summed, means are over seeds with their t interval."""
    names = [name for name in labs[0]["sets"] if all(name in lab["sets"] for lab in labs)]
    sets = {name: _merged([lab["sets"][name] for lab in labs]) for name in names}
    with_student = [name for name in labs[0]["gains"] if all(name in lab["gains"] for lab in labs)]
    gains: dict[str, Gain] = {}
    for name in with_student:
        values, intervals = zip(*((lab["gains"][name]["value"], lab["gains"][name]["interval"]) for lab in labs))
        interval = t_interval(values, least_error=mean_error(intervals))
        gains[name] = {"value": statistics.fmean(values), "interval": list(interval)}
    return {"sets": sets, "gains": gains, "gain_is": labs[0]["gain_is"], "go_with": go_with(sets, gains)}


def _merged(studies: list[Study]) -> Study:
    """Counts, by key and below; distributions of seeds; bins of length."""
    merged: Study = {}
    for key, first in studies[0].items():
        values = [study[key] for study in studies]
        if key == "by_length":
            merged[key] = _merged_bins(values) if all(values) else []
        elif key == "by_level":
            levels = [level for level in first if all(level in value for value in values)]
            merged[key] = {level: [sum(value[level][i] for value in values) for i in (0, 1)] for level in levels}
        elif key in ("surprisal", "tokens") and any(value is None for value in values):
            merged[key] = None
        elif isinstance(first, dict) and "mean" in first:
            merged[key] = {q: statistics.fmean(value[q] for value in values) for q in ("mean", "p10", "p50", "p90")}
            merged[key] |= {
                "interval": list(t_interval([value["mean"] for value in values])),
                "max": max(value["max"] for value in values),
            }
        elif isinstance(first, dict):
            merged[key] = {name: sum(value[name] for value in values) for name in first}
        else:
            merged[key] = sum(values)
    return merged


def _merged_bins(of_seeds: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The bins of all seeds, each put together with the nearest in length of the seed that has most of them."""
    means = [row["mean"] for row in max(of_seeds, key=len)]
    merged: list[list[dict[str, float]]] = [[] for _ in means]
    for row in (row for bins in of_seeds for row in bins):
        merged[min(range(len(means)), key=lambda i: abs(row["mean"] - means[i]))].append(row)
    return [_merged_bin(rows) for rows in merged]


def _merged_bin(rows: list[dict[str, float]]) -> dict[str, float]:
    graded = sum(row["graded"] for row in rows)
    return {
        "from": min(row["from"] for row in rows),
        "to": max(row["to"] for row in rows),
        "mean": sum(row["mean"] * row["graded"] for row in rows) / graded,
        "right": sum(row["right"] for row in rows),
        "graded": graded,
    }
