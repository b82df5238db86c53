"""A plan for people to read."""

from __future__ import annotations

from typing import Any

from w2sr_jax.core.topology import GIB


def render(plan: dict[str, Any]) -> str:
    """The lines that `w2sr plan` prints."""
    lines = [f"{plan['model']} on {plan['topology']} ({plan['chips']} chips): {verdict(plan)}", *_step(plan)]
    lines += [f"  {line}" for line in plan["advice"]]
    if plan.get("tried"):
        lines += ["", "  tried:"]
        lines += [f"    {t['flags']}: {verdict(t)}, {seconds(t['step_seconds_estimate'])}" for t in plan["tried"]]
    label = "train it so" if plan["fits"] else "what does not fit"
    lines += ["", f"  {label}: w2sr sft {plan['flags']}", f"  basis: {plan['basis']}"]
    if decode := plan.get("decode"):
        rows, slots = decode["rows"], decode["slots"]
        lines += ["", f"decode step, a token for each of {rows} rows, {slots} slots: {verdict(decode)}", *_step(decode)]
        lines += [f"  basis: {decode['basis']}"]
    return "\n".join(lines)


def verdict(plan: dict[str, Any]) -> str:
    """fits, 18.90 of 31.24 GiB a chip, 39 % to spare; or by how much it does not."""
    peak, available = plan["peak_bytes_per_chip"] / GIB, plan["hbm_bytes_per_chip"] / GIB
    if plan["fits"]:
        return f"fits, {peak:.2f} of {available:.2f} GiB a chip, {int(100 * (1 - peak / available))} % to spare"
    least = "at least " if plan["peak_is_lower_bound"] else ""
    return f"does not fit, {least}{peak:.2f} of {available:.2f} GiB a chip"


def seconds(value: float | None) -> str:
    """3.21 s, or that there is no estimate."""
    return "no time estimate" if value is None else f"{value:.3g} s"


def _step(plan: dict[str, Any]) -> list[str]:
    parts = ", ".join(f"{kind} {size / GIB:.2f}" for kind, size in plan["memory"].items())
    flops = f"  FLOPs a step: {plan['flops_per_step']:.3e}, {plan['flops_over_model_flops']:.2f} times the model's own"
    if six_n := plan.get("six_n_flops_per_step"):
        flops += f" with causal attention, {plan['flops_per_step'] / six_n:.2f} times 6N"
    lines = [f"  HBM a chip, GiB: {parts}", flops]
    for kind, total in plan["collectives"].items():
        waits = total["synchronous_bytes"] / max(1, total["bytes"])
        lines.append(
            f"  {kind}: {total['count']} a step, {total['bytes'] / 1e9:.2f} GB a chip, {waits:.0%} synchronous"
        )
    lines.append(f"  compiled in {plan['compile_seconds']:.0f} s")
    if plan["step_seconds_estimate"]:
        rate, share = plan["tokens_per_second"], plan["model_flops_utilisation"]
        parts = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in plan["step_seconds_parts"].items())
        lines.append(f"  estimated step: {seconds(plan['step_seconds_estimate'])} ({parts})")
        lines.append(f"  {rate:,.0f} tokens/s, {share:.1%} of the peak by the model's FLOPs")
    if plan["usd_per_billion_tokens"] is not None:
        price = plan["price"]
        lines.append(
            f"  {plan['usd_per_billion_tokens']:,.0f} USD a billion tokens at {price['usd_per_chip_hour']:.2f} USD a "
            f"chip-hour ({price['source']})"
        )
    return lines
