"""compare.json as text, and as a page with its figures."""

from __future__ import annotations

from typing import Any

from w2sr_jax.core.rows import Row, rows_table
from w2sr_jax.reporting.tables import Table, markdown_table

Found = dict[str, Any]  # compare.json
MOST_LOAD = 0.05  # of the processor time, by others, that nobody need be told of
RECIPES_NOTE = (
    "The students' SFT of configs/paper alone, on each side: neither the teacher's traces nor the GRPO ceiling nor "
    "evaluation is in it. Extrapolated by FLOPs from the model measured here: a larger model on other devices uses "
    "them differently. `w2sr plan` estimates a slice from its compiled program."
)
RECIPES_TITLE = "The SFT of whole recipes"
ANSWERS_NOTE = (
    "Greedy answers of the same weights, beside ours. First tokens are held against a tolerance; after one other "
    "token, whose logit is as high up to rounding, the rest of an answer is another text."
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


def answers_table(found: Found) -> Table:
    """One line a workload and engine; the head alone where nothing was generated."""
    table = [["workload", "peer", "answers", "first token the same", "at least", "whole answer the same", "the same"]]
    for one in found["answers"]:
        table.append(
            [
                one["workload"],
                one["peer"],
                str(one["count"]),
                f"{100 * one['first']:.1f} %",
                f"{100 * one['allowed']:.0f} %" if one["allowed"] else "no bar",
                f"{100 * one['whole']:.1f} %",
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
    for one in found["answers"]:
        if one["wrong"]:
            said.append(
                f"PARITY FAILED: {one['peer']} on {one['workload']} answers otherwise than we do "
                f"({100 * one['first']:.0f} % of first tokens are ours): its speed means nothing."
            )
        elif not one["holds"]:
            said.append(
                f"{one['peer']} on {one['workload']}: {100 * one['first']:.1f} % of its greedy answers begin as ours, "
                f"fewer than {100 * one['allowed']:.0f} %: more than rounding should change."
            )
    for one in found["missing"]:
        said.append(f"Left out: {one['column']}: {one['why']}.")
    loads = [one["others_share"] for one in found["workloads"].values() if one["others_share"] is not None]
    if max(loads, default=0.0) > MOST_LOAD:
        said.append(
            f"Other processes took {100 * max(loads):.0f} % of the machine's processor time meanwhile: these speeds "
            "mean little. Measure on a machine that does nothing else."
        )
    if usd := found["price"]["usd_per_device_hour"]:
        source = found["price"]["source"] or "--config.price.usd_per_device_hour, without a source"
        said.append(f"Money: {usd:.4g} USD a device-hour ({source}).")
    else:
        said.append(
            "No price of this device is known, so nothing here is in money: set --config.price.usd_per_device_hour and "
            "--config.price.source, or give configs/prices.py a row."
        )
    return said


def basis(found: Found) -> str:
    """What the ratios rest on, in one paragraph."""
    sides = [side for workload in found["workloads"].values() for side in workload["sides"].values()]
    versions = {name: version for side in sides for name, version in side["versions"].items()}
    settings = {
        f"{name} {side['settings']}": None
        for workload in found["workloads"].values()
        for name, side in workload["sides"].items()
        if side.get("settings")
    }
    order = "Each side has the accelerator to itself, in turn" if found["alone"] else "Sides alternate in turns"
    shared = found["environment"]
    heap = f"GLIBC_TUNABLES {shared['GLIBC_TUNABLES']}, for generation {shared['GLIBC_TUNABLES of generation']}"
    return (
        f"Machine: {found['machine']}; {found['threads']} threads a side; on both {heap}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; commit "
        f"{(found['commit'] or 'unknown')[:10]}. Model: {found['model']['parameters'] / 1e6:.1f}M parameters. "
        f"{f'Settings: {", ".join(settings)}. ' if settings else ''}{order}; medians of turns in one run; a ratio "
        "above 1 is better for us."
    )


def text(found: Found) -> str:
    """compare.md, which is also what the command prints."""
    parts = ["# JAX against PyTorch", basis(found), *notes(found)]
    parts += ["## The same training", markdown_table(parity_table(found))]
    if found["answers"]:
        parts += ["## The same answers", ANSWERS_NOTE, markdown_table(answers_table(found))]
    parts += ["## Speed, memory and cost", markdown_table(rows_table(rows(found)))]
    if found["recipes"]:
        parts += [f"## {RECIPES_TITLE}", RECIPES_NOTE, markdown_table(recipes_table(found))]
    return "\n\n".join(parts) + "\n"
