"""Many claims in one report: how many would hold by chance, and which hold although they are many.

The family is one report: Holm's step-down procedure (1979) keeps the chance of a single false verdict in it below 5 %.
"""

from __future__ import annotations

from typing import Any

from w2sr_jax.grading.statistics import holm

Claims = dict[str, dict[str, Any]]
LEVEL = 0.05


def corrected(claims: Claims) -> Claims:
    """The claims with p_holm, and whether their verdict survives the correction.

    Args:
        claims: with p and holds, those of one report.
    """
    adjusted = holm([claim["p"] for claim in claims.values()])
    return {
        sentence: claim | {"p_holm": p, "survives": p < LEVEL and claim["holds"] != "not shown"}
        for (sentence, claim), p in zip(claims.items(), adjusted, strict=True)
    }


def sentence(claims: Claims) -> str:
    """How many verdicts chance alone would give, and how many survive; "" for one claim, which has no company."""
    if len(claims) < 2 or not all("p_holm" in claim for claim in claims.values()):
        return ""
    by_chance = LEVEL / 2 * len(claims)
    kept = sum(claim["survives"] for claim in claims.values())
    found = sum(claim["holds"] != "not shown" for claim in claims.values())
    return (
        f"These are {len(claims)} claims at 95 % each: if there were no difference anywhere, {by_chance:.2g} of them "
        f"would be expected to hold and as many to fail by chance. Of {found} found to hold or to fail, {kept} "
        f"{'survives' if kept == 1 else 'survive'} Holm's correction for their number, marked with *."
    )


def cell(claim: dict[str, Any]) -> str:
    """ "0.012 *": p after the correction, marked where the verdict survives it; a dash for reports of old."""
    if "p_holm" not in claim:
        return "-"
    shown = f"{claim['p_holm']:.3f}" if claim["p_holm"] >= 0.001 else "< 0.001"
    return f"{shown} *" if claim["survives"] else shown
