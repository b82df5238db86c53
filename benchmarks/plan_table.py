"""The table of configs/plan/README.md from finished plans: `python -m benchmarks.plan_table runs/plan`.

One row for each model and slice of configs/plan/topologies.json; its plan lies in DIR/MODEL-SLICE (v6e:4x4 is v6e-4x4).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from w2sr_jax.core.files import read_json
from w2sr_jax.core.topology import GIB, parse_topology

SLICES = Path(__file__).parents[1] / "configs" / "plan" / "topologies.json"
HEADER = (
    "| model | slice | mesh data x fsdp x tensor, accum | fits | peak / HBM a chip, GiB | parameters + optimizer | "
    "activations | code | FLOPs / 6N | estimated step, s | tokens/s | USD / 1e9 tokens | compiled in, s |\n"
    "|" + "---|" * 13
)


def main(folder: Path) -> str:
    """The table's Markdown."""
    rows = [HEADER]
    for model, slices in read_json(SLICES).items():
        for name in slices:
            path = folder / f"{model}-{name.replace(':', '-')}" / "plan.json"
            cells = _cells(read_json(path)) if path.exists() else ["not run", *[""] * 10]
            rows.append(f"| {model} | {name} ({parse_topology(name).devices}) | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cells(plan: dict[str, Any]) -> list[str]:
    mesh, memory = plan["mesh"], plan["memory"]
    least = "at least " if plan["peak_is_lower_bound"] else ""
    over = f"no, by {least}{plan['over_bytes_per_chip'] / GIB:.2f} GiB"
    return [
        f"{mesh['data']} x {mesh['fsdp']} x {mesh['tensor']}, {plan['train']['grad_accum']}",
        "yes" if plan["fits"] else over,
        f"{least}{plan['peak_bytes_per_chip'] / GIB:.2f} / {plan['hbm_bytes_per_chip'] / GIB:.2f}",
        f"{(memory['parameters'] + memory['optimizer']) / GIB:.2f}",
        f"{memory['activations'] / GIB:.2f}",
        f"{memory['code'] / GIB:.2f}",
        f"{plan['flops_per_step'] / plan['six_n_flops_per_step']:.2f}",
        _number(plan["step_seconds_estimate"], ".1f"),
        _number(plan["tokens_per_second"], ",.0f"),
        _number(plan["usd_per_billion_tokens"], ",.0f"),
        f"{plan['compile_seconds']:.0f}",
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/plan")))
