"""What each route costs, from the ledgers, and how many times dearer GRPO is, by every definition in use.

A ratio without its definition says nothing: in the same run, compilation, trace generation and the teacher's own
training move it by an order of magnitude. So all of them are printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from w2sr_jax.core.cost import LedgerLine, mean_devices, read_ledger
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.records import RecordError
from w2sr_jax.core.stage_config import ReportConfig

TRAINING = ("sft", "grpo")

DEFINITIONS = {
    "training": "GRPO training / SFT training, device-seconds with compilation",
    "training_without_compilation": "GRPO training / SFT training, device-seconds without compilation",
    "route": "GRPO / SFT + trace generation + filter, device-seconds",
    "route_with_teacher": "GRPO / SFT + traces + filter + making the teacher, device-seconds",
    "equal_accuracy": "GRPO until validation reaches the student's Pass@1 / SFT + traces + filter, device-seconds",
    "training_flops": "GRPO training / SFT training, FLOPs",
    "route_flops": "GRPO / SFT + traces + filter, FLOPs",
    "route_flops_with_teacher": "GRPO / SFT + traces + filter + making the teacher, FLOPs",
    "tokens_generated": "GRPO rollouts / traces, tokens generated",
    "tokens_generated_with_teacher": "GRPO rollouts / traces + the teacher's own rollouts, tokens generated",
    "usd": "GRPO / SFT + traces + filter, money",
}

Curve = list[tuple[float, float]]

VALIDATION = ("pass_at_1",)
# stage -> title of a curve -> its unit, and how the metric's name may end
CURVES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "sft": {"SFT loss": ("nats per token", ("loss",))},
    "grpo": {
        "GRPO reward": ("mean reward of the rollouts", ("reward", "reward_mean")),
        "GRPO response length": ("tokens per response", ("response_tokens",)),
        "validation Pass@1": ("share of problems solved", VALIDATION),
    },
}
UNITS = {title: unit for curves in CURVES.values() for title, (unit, _) in curves.items()}
MOST_POINTS = 200  # of a curve in report.json and on the page


def read_route(workdirs: tuple[str, ...]) -> list[LedgerLine]:
    """All ledger lines of a route; a workdir named twice counts once."""
    return [line for workdir in dict.fromkeys(workdirs) for line in read_ledger(workdir)]


def total(lines: list[LedgerLine]) -> dict[str, Any]:
    """Sums of a route. `usd` is None if any of its stages has no price."""
    prices = [line.usd for line in lines if line.usd is not None]
    return {
        "device_kinds": sorted({line.device_kind for line in lines}),
        "device_seconds": sum(line.device_seconds for line in lines),
        "compile_device_seconds": sum(line.compile_seconds * mean_devices(line.to_json()) for line in lines),
        "tokens_in": sum(line.tokens_in for line in lines),
        "tokens_out": sum(line.tokens_out for line in lines),
        "flops": sum(line.flops for line in lines),
        "usd": sum(prices) if lines and len(prices) == len(lines) else None,
    }


def ledger(config: ReportConfig, targets: dict[str, float]) -> dict[str, Any]:
    """Costs of every route, of the teacher, and the ratios.

    Args:
        targets: Pass@1 that GRPO's validation has to reach for the ratio at equal accuracy, of the arms that have one.
    """
    routes = {arm: read_route(workdirs) for arm, workdirs in config.routes.items()}
    found: dict[str, Any] = {
        "routes": {arm: _route(lines) for arm, lines in routes.items()},
        "teacher": _route(read_route(config.teacher_route)) if config.teacher_route else None,
        "with_teacher": {},  # device-seconds of the students whose teacher is charged
        "definitions": DEFINITIONS,
        "ratios": {},
    }
    if config.ceiling not in routes:
        return found
    ceiling = routes[config.ceiling]
    for arm, lines in routes.items():
        if arm != config.ceiling and any(line.stage == "sft" for line in lines):
            teacher = read_route(charged(config, arm))
            if teacher:
                found["with_teacher"][arm] = total(lines + teacher)["device_seconds"]
            until = spent_until(config.routes[config.ceiling], targets[arm]) if arm in targets else None
            found["ratios"][arm] = ratios(ceiling, lines, teacher, until)
    return found


def charged(config: ReportConfig, arm: str) -> tuple[str, ...]:
    """The workdirs of config.teacher_route that an arm is charged with beside its own route.

    None where config.teachers says that another model taught it. An arm that it says nothing of is charged: it may
    learn from what the teacher's traces were made into.
    """
    model = config.teachers.get(arm)
    made = [Path(workdir).resolve() for workdir in config.teacher_route]
    if model is not None and not any(Path(model).resolve().is_relative_to(workdir) for workdir in made):
        return ()
    # A workdir in both is part of the student's own route already.
    return tuple(workdir for workdir in config.teacher_route if workdir not in config.routes[arm])


def ratios(
    ceiling: list[LedgerLine], student: list[LedgerLine], teacher: list[LedgerLine], until: float | None
) -> dict[str, float | None]:
    """Cost of the ceiling's route over that of the student's, by each of DEFINITIONS; None where one is not known.

    Args:
        until: device-seconds of GRPO until validation reached the student's accuracy; None if that is not known.
    """
    grpo, sft = (total([x for x in lines if x.stage in TRAINING]) for lines in (ceiling, student))
    whole, route, charged = total(ceiling), total(student), total(student + teacher)
    with_teacher = bool(teacher)
    return {
        "training": _ratio(grpo["device_seconds"], sft["device_seconds"]),
        "training_without_compilation": _ratio(_steady(grpo), _steady(sft)),
        "route": _ratio(whole["device_seconds"], route["device_seconds"]),
        "route_with_teacher": _ratio(whole["device_seconds"], charged["device_seconds"]) if with_teacher else None,
        "equal_accuracy": _ratio(until, route["device_seconds"]),
        "training_flops": _ratio(grpo["flops"], sft["flops"]),
        "route_flops": _ratio(whole["flops"], route["flops"]),
        "route_flops_with_teacher": _ratio(whole["flops"], charged["flops"]) if with_teacher else None,
        "tokens_generated": _ratio(whole["tokens_out"], route["tokens_out"]),
        "tokens_generated_with_teacher": _ratio(whole["tokens_out"], charged["tokens_out"]) if with_teacher else None,
        "usd": _ratio(whole["usd"], route["usd"]),
    }


def spent_until(workdirs: tuple[str, ...], accuracy: float) -> float | None:
    """Device-seconds of a route's training steps up to the first validation that reaches `accuracy`.

    As metrics.jsonl has them: compilation, validation and checkpoints are in a step's seconds; what comes before the
    first step is not, and a step that was done again after a kill counts once.

    Returns:
        None if no validation reaches it, or a step before does not say how long it took.
    """
    spent = 0.0
    for workdir in dict.fromkeys(workdirs):
        devices = next((line.device_count for line in read_ledger(workdir) if line.stage in TRAINING), 0)
        rows = _rows(workdir) if devices else []
        reached = [step for step, value in _points(rows, VALIDATION) if value >= accuracy]
        steps = [row for row in rows if not reached or row["step"] <= reached[0]]
        if any(row.get("step_seconds") is None for row in steps):
            return None
        spent += devices * sum(row["step_seconds"] for row in steps)
        if reached:
            return spent
    return None


def curves(workdirs: tuple[str, ...]) -> dict[str, Curve]:
    """What a route's training logged: {title, one of UNITS: [(step, value)]}."""
    found: dict[str, Curve] = {}
    for workdir in dict.fromkeys(workdirs):
        stages = {line.stage for line in read_ledger(workdir)}
        for stage in stages & CURVES.keys():
            rows = _rows(workdir)
            for title, (_, suffixes) in CURVES[stage].items():
                if points := _points(rows, suffixes):
                    found[title] = points
    return found


def all_curves(config: ReportConfig) -> dict[str, dict[str, Any]]:
    """{title: {"unit": ..., "arms": {arm: [[step, value]]}}} of all routes and the teacher, in order of UNITS."""
    routes = config.routes | ({"(teacher)": config.teacher_route} if config.teacher_route else {})
    by_arm = {arm: curves(workdirs) for arm, workdirs in routes.items()}
    found = {
        title: {"unit": unit, "arms": {arm: thinned(of[title]) for arm, of in by_arm.items() if title in of}}
        for title, unit in UNITS.items()
    }
    return {title: curve for title, curve in found.items() if curve["arms"]}


def thinned(points: Curve) -> list[list[float]]:
    """Every k-th point, such that at most MOST_POINTS are left, and the last one."""
    every = -(-len(points) // MOST_POINTS)
    kept = points[:: max(1, every)]
    return [list(point) for point in (kept if kept[-1:] == points[-1:] else [*kept, points[-1]])]


def _rows(workdir: str) -> list[dict[str, Any]]:
    try:
        return read_metrics(workdir)
    except RecordError:
        return []  # a curve is decoration: a bad line of it must not cost the report


def _points(rows: list[dict[str, Any]], suffixes: tuple[str, ...]) -> Curve:
    """(step, value) of the first metric whose name ends in one of `suffixes`, as in "train/loss"."""
    names = dict.fromkeys(name for row in rows for name in row)
    name = next((n for s in suffixes for n in names if n == s or n.endswith((f"/{s}", f"_{s}"))), None)
    return [(row["step"], row[name]) for row in rows if name is not None and row.get(name) is not None]


def _route(lines: list[LedgerLine]) -> dict[str, Any]:
    return {"stages": [line.to_json() for line in lines], "total": total(lines)}


def _steady(cost: dict[str, Any]) -> float:
    return cost["device_seconds"] - cost["compile_device_seconds"]


def _ratio(dear: float | None, cheap: float | None) -> float | None:
    return dear / cheap if dear and cheap and cheap > 0 else None
