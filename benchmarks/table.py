"""What every benchmark prints: rows of ours, peer and their ratio, from one run on one machine."""

from __future__ import annotations

import json
from collections.abc import Sequence

from w2sr_jax.core.rows import Row, machine, rows_table
from w2sr_jax.reporting.tables import markdown_table


def show(rows: Sequence[Row]) -> None:
    """Prints a Markdown table, then the same as JSON lines."""
    print(f"\nmachine: {machine()}; medians; a ratio above 1 is better for us\n")
    print(markdown_table(rows_table(rows)), "\n")
    for one in rows:
        print(json.dumps(one.to_json()))
