"""`w2sr plan`'s estimates beside published step times: `python -m benchmarks.plan_published runs/published`.

The plans are those of configs/plan_published.py, each in DIR/VARIANT.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from w2sr_jax.core.files import read_json

CONFIG = Path(__file__).parents[1] / "configs" / "plan_published.py"
HEADER = "| step | published, s | estimated, s | error | compute, kernels, exposed collectives, s |\n|" + "---|" * 5


def main(folder: Path) -> str:
    """The table's Markdown."""
    rows = [HEADER]
    for name, recipe in runpy.run_path(str(CONFIG))["PUBLISHED"].items():
        path = folder / name / "plan.json"
        cells = ["not run", "", ""]
        if path.exists():
            plan = read_json(path)
            seconds, parts = plan["step_seconds_estimate"], plan["step_seconds_parts"]
            cells = ["no estimate: it does not fit", "", ""]
            if seconds:
                split = ", ".join(f"{parts[key]:.2f}" for key in ("compute", "kernels", "exposed_collectives"))
                cells = [f"{seconds:.2f}", f"{seconds / recipe.seconds - 1:+.1%}", split]
        rows.append(f"| {name}, {recipe.topology} | {recipe.seconds:.2f} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/published")))
