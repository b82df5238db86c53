"""XLA's options for each platform, one table: what a real run compiles with, and therefore what `w2sr plan` compiles.

Each option has the reason why it is here. An option that no measurement or compilation spoke for is not.
"""

from __future__ import annotations

import dataclasses

from jax.sharding import Mesh

from w2sr_jax.core.topology import chip_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One XLA option and where it applies."""

    name: str
    value: str
    chips: tuple[str, ...]
    min_fsdp: int = 1  # smallest fsdp axis
    reason: str


TABLE = (
    Option(
        name="xla_jf_spmd_threshold_for_windowed_einsum_mib",
        value="1000000",
        chips=("v5e", "v5p", "v6e"),
        min_fsdp=2,
        reason="XLA would turn weight gathers into a ring of small matmuls. By its own cycles a 7B step on 16 v5e "
        "chips takes 29.0 s with the ring and 14.1 s without; on 4 chips a 1.5B step takes 14.1 s of compute with and "
        "10.8 s without, of which 1.6 s are 11 % fewer FLOPs",
    ),
    Option(
        name="xla_tpu_scoped_vmem_limit_kib",
        value="98304",
        chips=("v5e", "v6e"),
        reason="Larger fusions. Google's published v6e recipes all set it (tpu-recipes, training/trillium), and XLA's "
        "cycles of a 7B layer's MLP on 16 v6e chips fall from 48.2 to 41.8 million; those of a 32B step on 256 v5e "
        "chips from 4.79 to 4.39e9, in the matmuls over the MLP's width. Compiling takes up to three times as long",
    ),
)


def compiler_options(mesh: Mesh | None) -> dict[str, str]:
    """The options that apply on this mesh; none on a CPU, a GPU or a single device."""
    if mesh is None:
        return {}
    chip = chip_of(mesh.devices.flat[0].device_kind)
    fsdp = mesh.shape["fsdp"]
    return {o.name: o.value for o in TABLE if chip is not None and chip.name in o.chips and fsdp >= o.min_fsdp}
