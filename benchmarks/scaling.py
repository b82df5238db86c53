"""Whether cost grows as it should: our training step's time against layers, tokens and batch, with fitted exponents."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost
from w2sr_jax.core.rows import Row
from w2sr_jax.core.tool_config import CompareConfig
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.twin.made import make
from w2sr_jax.twin.side import Side
from w2sr_jax.twin.workloads import write_batches

LAYERS, TOKENS, ROWS = (2, 4, 8), (256, 512, 1024), (2, 4, 8)
MIDDLE = (4, 512, 4)  # the point that the others depart from, along one axis at a time


def points() -> dict[str, list[tuple[int, int, int]]]:
    """Axis -> (layers, tokens, rows) of its points."""
    layers, tokens, rows = MIDDLE
    return {
        "layers": [(x, tokens, rows) for x in LAYERS],
        "tokens of a row": [(layers, x, rows) for x in TOKENS],
        "rows": [(layers, tokens, x) for x in ROWS],
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms: values grow as sizes to this power."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    x0, y0 = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / sum((x - x0) ** 2 for x in xs)


def scaling_rows(
    config: CompareConfig, root: Path, threads: int, env: Mapping[str, str], updates: int = 5
) -> list[Row]:
    """One row an axis: the fitted exponent of the seconds, beside that of the FLOPs.

    Args:
        config: its random shape with other numbers of layers, its SFT settings.
        updates: counted ones of each point, after two that are not.

    Returns:
        nothing where the config compares a model that is there: none of the same shape has other numbers of layers.
    """
    if not config.random.shape:
        logging.warning("growth of the training step: left out, since it takes random models (config.random.shape)")
        return []
    seconds: dict[tuple[int, int, int], tuple[float, float]] = {}
    for point in {point for line in points().values() for point in line}:
        seconds[point] = _measure(config, root, point, threads, env, updates)
    rows, layers_of = [], Path(config.random.shape).stem
    for axis, line in points().items():
        sizes = [(p[0], p[1], p[2])[list(points()).index(axis)] for p in line]
        times, flops = zip(*(seconds[point] for point in line))
        shown = ", ".join(map(str, sizes))
        rows.append(
            Row(
                what=f"growth of the training step's seconds with {axis} ({shown}), layers of {layers_of}",
                ours=exponent(sizes, times),
                peer=exponent(sizes, flops),
                unit="exponent",
                against="the FLOPs' own growth",
                runs=updates,
            )
        )
    return rows


def _measure(
    config: CompareConfig, root: Path, point: tuple[int, int, int], threads: int, env: Mapping[str, str], updates: int
) -> tuple[float, float]:
    """(median seconds, FLOPs) of an update."""
    layers, tokens, rows = point
    shape = root / f"layers-{layers}.json"
    root.mkdir(parents=True, exist_ok=True)
    shape.write_text(json.dumps(json.loads(Path(config.random.shape).read_text()) | {"num_hidden_layers": layers}))
    random = dataclasses.replace(config.random, shape=str(shape))
    model, problems, traces = make(random, root / f"layers-{layers}", config.sft.train.dtype)
    data = dataclasses.replace(
        config.sft.data, problems=str(problems), traces=str(traces), max_length=tokens, batch_size=rows
    )
    sft = dataclasses.replace(config.sft, model=str(model), data=data)
    batches = root / "-".join(map(str, point))
    write_batches(dataclasses.replace(config, sft=sft), batches, 2)
    request: dict[str, Any] = {
        "side": "jax_sft",
        "model": str(model),
        "batches": str(batches),
        "data": dataclasses.asdict(data),
        "optimizer": dataclasses.asdict(sft.optimizer),
        "train": dataclasses.asdict(sft.train),
        "mesh": dataclasses.asdict(sft.mesh),
        "total": 2 + updates,
        "threads": threads,
    }
    side = Side("ours", request, env)
    try:
        taken = side.ask({"do": "steps", "first": 0, "count": 2 + updates})["seconds"][2:]
    finally:
        side.close()
    flops = cost.train_flops(tokens=rows * tokens, context=tokens, **flops_shape(hf.load_config(model)))
    return statistics.median(taken), flops
