"""From the compiler's answer to a plan: memory by kind, FLOPs, an estimated step time, cost. Pure functions."""

from __future__ import annotations

import os
from typing import Any

from w2sr_jax.core.config import PriceConfig
from w2sr_jax.core.topology import GIB, Chip, Topology
from w2sr_jax.planning.oom import read_overflow

# A ring all-reduce moves everything twice, the others once.
PASSES = {"all-reduce": 2.0}
# Pallas kernels carry no cycles. Splash's softmax keeps the vector units as busy as its matmuls keep the MXU: it is
# taken to run at half of the peak. An assumption, held against published steps only together with all the rest.
KERNEL_EFFICIENCY = 0.5


def plan_of(
    topology: Topology, found: dict[str, Any], tokens: int, model_flops: float, price: PriceConfig | None
) -> dict[str, Any]:
    """One step's plan, as plan.json holds it.

    Args:
        found: the worker's answer.
        tokens: that a step trains on, or writes.
        model_flops: of the same step by 6N and causal attention (core/cost.py).
        price: of one chip, None where none is known.
    """
    available = topology.chip.hbm_bytes if topology.chip else host_memory() // topology.devices
    plan: dict[str, Any] = {"fits": False, "peak_bytes_per_chip": 0, "hbm_bytes_per_chip": available}
    plan |= memory(found, available)
    plan["fits"] = "out_of_memory" not in found and plan["peak_bytes_per_chip"] <= available
    plan |= {
        "flops_per_step": found["flops"],
        "model_flops_per_step": model_flops,
        "flops_over_model_flops": found["flops"] / model_flops,
        "collectives": found.get("program", {}).get("collectives", {}),
    }
    seconds, parts = step_seconds(topology, found)
    plan |= {"step_seconds_estimate": seconds, "step_seconds_parts": parts, "tokens_per_step": tokens}
    plan["tokens_per_second"] = tokens / seconds if seconds else None
    plan["model_flops_utilisation"] = (
        model_flops / seconds / topology.devices / topology.chip.flops_per_s if seconds and topology.chip else None
    )
    plan["price"] = {"usd_per_chip_hour": price.usd_per_device_hour, "source": price.source} if price else None
    plan["usd_per_billion_tokens"] = (
        price.usd_per_device_hour * topology.devices * seconds / 3600 / tokens * 1e9 if price and seconds else None
    )
    plan["compile_seconds"] = found["compile_seconds"]
    plan["compiler_options"] = found["compiler_options"]
    plan["versions"] = found["versions"]
    return plan


def memory(found: dict[str, Any], available: int) -> dict[str, Any]:
    """Peak bytes on one chip, by kind; the kinds add up to the peak."""
    kinds = dict(found["argument_bytes"])
    if "out_of_memory" in found:
        overflow = read_overflow(found["out_of_memory"])
        arguments = (overflow and overflow.arguments) or sum(kinds.values())
        code = (overflow and overflow.code) or 0
        if overflow is None:
            peak = max(available + 1, arguments)  # all that is known is that it is more than there is
        else:
            peak = max(overflow.used + (arguments if overflow.is_lower_bound else 0), available + 1)
        extra = {
            "peak_is_lower_bound": overflow is None or overflow.is_lower_bound,
            "over_bytes_per_chip": peak - available,
            "largest_buffers": list(overflow.largest) if overflow else [],
        }
    else:
        stats = found["memory"]
        arguments, code = stats["argument_size_in_bytes"], stats["generated_code_size_in_bytes"]
        # What is allocated does not hold the program itself, which lies in HBM, too.
        peak = (stats.get("total_allocation_bytes") or stats["peak_memory_in_bytes"]) + code
        extra = {"peak_is_lower_bound": False, "over_bytes_per_chip": max(0, peak - available), "largest_buffers": []}
    kinds["padding"] = max(0, arguments - sum(kinds.values()))
    kinds |= {"activations": max(0, peak - arguments - code), "code": code}
    return {"peak_bytes_per_chip": peak, "memory": kinds} | extra


def step_seconds(topology: Topology, found: dict[str, Any]) -> tuple[float | None, dict[str, float]]:
    """(estimate, its parts), (None, {}) where there is nothing to estimate from. See `basis` for what it rests on."""
    chip, program = topology.chip, found.get("program")
    if chip is None or program is None:
        return None, {}
    parts = {
        "compute": program["cycles"] / chip.clock_hz,
        "kernels": found["kernel_flops"] / topology.devices / chip.flops_per_s / KERNEL_EFFICIENCY,
        "exposed_collectives": _seconds(program["collectives"], "synchronous_bytes", chip),
        "all_collectives": _seconds(program["collectives"], "bytes", chip),
        "at_peak_flops": found["flops"] / topology.devices / chip.flops_per_s,
    }
    return max(parts["compute"] + parts["kernels"] + parts["exposed_collectives"], parts["all_collectives"]), parts


def _seconds(collectives: dict[str, Any], key: str, chip: Chip) -> float:
    inbound = chip.ici_bytes_per_s / 2  # the documented rate counts both directions
    return sum(PASSES.get(kind, 1.0) * total[key] for kind, total in collectives.items()) / inbound


def basis(topology: Topology, found: dict[str, Any], what: str) -> str:
    """What the numbers of a plan rest on, in a few sentences."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    options = ", ".join(f"{k}={v}" for k, v in found["compiler_options"].items()) or "no compiler options"
    said = [
        f"{what}, compiled ahead of time for {topology.name} by {versions} with {options}; nothing was run.",
        "Memory is XLA's own analysis of the compiled program (TPU: what it counts against HBM).",
        "FLOPs are those of every matmul in the traced step, recomputation included, over all chips.",
        "Collectives are those of one chip in one step: bytes of the larger side, times the step's loops around them; "
        "of a conditional's branches the costliest counts.",
    ]
    if topology.chip is None:
        return " ".join([*said, "On CPU devices there is no time estimate; the memory limit is this machine's share."])
    said.append(
        f"Step time: XLA's estimated cycles at {topology.chip.clock_hz / 1e9:g} GHz, plus synchronous collectives at "
        "half the documented interconnect rate (an all-reduce twice), asynchronous ones taken as hidden unless they "
        "take longer than everything else. XLA's estimates rank options; they are no measurement."
    )
    if found.get("kernel_flops"):
        said.append(
            "Pallas kernels carry no cycles and count with the FLOPs of their unmasked blocks at "
            f"{KERNEL_EFFICIENCY:.0%} of the chip's peak, which is an assumption."
        )
    if unknown := found.get("program", {}).get("unknown_loops"):
        said.append(f"{unknown} loops whose number of trips is not in the program count once.")
    return " ".join(said)


def advice(plan: dict[str, Any], state_bytes: int, chips: int, group_rows: int) -> list[str]:
    """What would make a plan fit that does not.

    Args:
        state_bytes: of parameters, moments and one set of gradients, over all chips.
        chips: of the slice.
        group_rows: rows of a microbatch on each data group.
    """
    if plan["fits"]:
        return []
    available, said = plan["hbm_bytes_per_chip"], []
    least = "at least " if plan["peak_is_lower_bound"] else ""
    said.append(f"does not fit by {least}{plan['over_bytes_per_chip'] / GIB:.2f} GiB a chip")
    if state_bytes / chips > available:
        said.append(
            f"parameters, moments and gradients alone are {state_bytes / chips / GIB:.1f} GiB a chip: "
            f"it takes {-(-state_bytes // available)} of these chips or more"
        )
        return said
    if group_rows > 1:
        said.append("smaller microbatches may fit: --config.rows_per_group=1")
    if plan["largest_buffers"]:
        said.append(f"the largest buffers: {'; '.join(plan['largest_buffers'])}")
    return said


def host_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
