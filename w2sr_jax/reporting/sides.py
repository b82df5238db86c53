"""compare.json as text, and as a page with its figures."""

from __future__ import annotations

from typing import Any

from w2sr_jax.core.rows import Row, rows_table
from w2sr_jax.reporting.tables import Table, markdown_table

Found = dict[str, Any]  # compare.json
MOST_LOAD = 0.05  # of the processor time, by others, that nobody need be told of
RECIPES_NOTE = (
    "SFT of configs/paper on each side, extrapolated by FLOPs from the model measured here: a larger model on other "
    "devices uses them differently. `w2sr plan` estimates a slice from its compiled program."
)


def rows(found: Found) -> list[Row]:
    """Its rows."""
    names = ("what", "ours", "peer", "unit", "against", "runs")
    return [Row(**{name: one[name] for name in names}) for one in found["rows"]]


def parity_table(found: Found) -> Table:
    """One line a workload and peer."""
    table = [["workload", "peer", "steps", "loss, largest gap", "allowed", "gradient norm", "allowed", "the same"]]
    for one in found["parity"]:
        table.append(
            [
                one["workload"],
                one["peer"],
                str(one["steps"]),
                f"{one['loss_gap']:.1e} (step {one['loss_step']})",
                f"{one['loss_tolerance']:.0e}",
                f"{one['norm_gap']:.1e} (step {one['norm_step']})",
                f"{one['norm_tolerance']:.0e}",
                "yes" if one["holds"] else "NO",
            ]
        )
    return table


def recipes_table(found: Found) -> Table:
    """What whole recipes would take."""
    table = [["recipe", "side", "device-hours", "USD"]]
    for one in found["recipes"]:
        usd = "no price" if one["usd"] is None else f"{one['usd']:,.0f}"
        table.append([one["recipe"], one["side"], f"{one['device_hours']:,.0f}", usd])
    return table


def notes(found: Found) -> list[str]:
    """What a reader must know beside the numbers; a failed parity comes first."""
    said = []
    for one in found["parity"]:
        if not one["holds"]:
            said.append(
                f"PARITY FAILED: {one['peer']} on {one['workload']} does not compute what we do "
                f"(loss {one['loss_gap']:.1e}, gradient norm {one['norm_gap']:.1e}): its speed means nothing."
            )
    for one in found["missing"]:
        said.append(f"Left out: {one['column']}: {one['why']}.")
    loads = [one["others_share"] for one in found["workloads"].values() if one["others_share"] is not None]
    if max(loads, default=0.0) > MOST_LOAD:
        said.append(
            f"Other processes took {100 * max(loads):.0f} % of the machine's processor time meanwhile: these speeds "
            "mean little. Measure on a machine that does nothing else."
        )
    if not found["price"]["usd_per_device_hour"]:
        said.append("No price of this machine is known, so nothing here is in money.")
    return said


def basis(found: Found) -> str:
    """What the ratios rest on, in one paragraph."""
    sides = [side for workload in found["workloads"].values() for side in workload["sides"].values()]
    versions = {name: version for side in sides for name, version in side["versions"].items()}
    shared = found["environment"]["GLIBC_TUNABLES"]
    return (
        f"Machine: {found['machine']}; {found['threads']} threads a side, {shared} on both; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; commit "
        f"{(found['commit'] or 'unknown')[:10]}. Model: {found['model']['parameters'] / 1e6:.1f}M parameters. "
        "Medians of turns that alternate in one run; a ratio above 1 is better for us."
    )


def text(found: Found) -> str:
    """compare.md, which is also what the command prints."""
    parts = ["# JAX against PyTorch", basis(found), *notes(found)]
    parts += ["## The same training", markdown_table(parity_table(found))]
    parts += ["## Speed, memory and cost", markdown_table(rows_table(rows(found)))]
    if found["recipes"]:
        parts += ["## Whole recipes", RECIPES_NOTE, markdown_table(recipes_table(found))]
    return "\n\n".join(parts) + "\n"
