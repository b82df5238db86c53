"""Steps whose time somebody measured and published, rebuilt, so that `w2sr plan`'s estimate can be held against it.

    w2sr plan --config=configs/plan_published.py:mistral-7b --config.decode_rows=0 --workdir=runs/published/mistral-7b
    python -m benchmarks.plan_published runs/published

Variants: mistral-7b, llama3.1-8b (MaxText on 8 v6e chips), llama3.1-8b-16 (on 16), llama3.1-70b (on 64), llama2-70b
(MaxText on 256 v5p chips). What their sources say and what could not be rebuilt stands in `PUBLISHED`; configs/plan/
holds the sizes.
"""

import dataclasses
from pathlib import Path

from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.config import MeshConfig, OptimizerConfig
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.core.tool_config import PlanConfig

HERE = Path(__file__).parent
RECIPES = "github.com/AI-Hypercomputer/tpu-recipes"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One measured step."""

    model: str
    seconds: float
    source: str
    topology: str
    rows: int  # of a step, on each chip
    length: int
    remat: str
    differs: str


PUBLISHED = {
    "mistral-7b": Published(
        model="mistral-7b",
        seconds=6.320,
        source=f"{RECIPES} training/trillium/Mistral-7B-MaxText (7f2f5e6): step 6, 7,776.8 tokens/s/device",
        topology="v6e:2x4",
        rows=6,
        length=8192,
        remat="offload",
        differs="blocks of 2,048 in Splash there, 1,024 here; a sliding window is computed in neither",
    ),
    "llama3.1-8b": Published(
        model="llama3.1-8b",
        seconds=3.443,
        source=f"{RECIPES} training/trillium/Llama3.1-8B-MaxText/v6e-8 (10ca5b9): step 14, 7,138.9 tokens/s/device",
        topology="v6e:2x4",
        rows=3,
        length=8192,
        remat="offload",
        differs="as mistral-7b",
    ),
    "llama3.1-8b-16": Published(
        model="llama3.1-8b",
        seconds=3.393,
        source=f"{RECIPES} training/trillium/Llama3.1-8B-MaxText/v6e-16 (43e52ff): step 14, 7,243.4 tokens/s/device",
        topology="v6e:4x4",
        rows=3,
        length=8192,
        remat="offload",
        differs="as mistral-7b",
    ),
    "llama3.1-70b": Published(
        model="llama3.1-70b",
        seconds=18.688,
        source=f"{RECIPES} training/trillium/Llama3.1-70B-MaxText/v6e-64 (3596002): step 14, 876.7 tokens/s/device",
        topology="v6e:8x8",
        rows=2,
        length=8192,
        remat="offload",
        differs="as mistral-7b; what attention adds is kept on the host here and computed again there",
    ),
    "llama2-70b": Published(
        model="llama2-70b",
        seconds=4 * 4096 / 692,
        source="maxtext.readthedocs.io reference/models/tiering: 692 tokens/s/device, 65.4 %; MaxText "
        "configs/v5p/llama2_70b.sh (ad10ed0): 4 rows a device, save_dot_except_mlpwi",
        topology="v5p:4x8x8",
        rows=4,
        length=4096,
        remat="projections",
        differs="attention's output is kept here and its projection computed again, there the reverse; flags that make "
        "collectives asynchronous there, which this libtpu refuses; ours does not fit; the table "
        "says 512 chips, the script v5p-512, 256",
    ),
}


def get_config(variant: str | None = None) -> PlanConfig:
    """A published step; mistral-7b without a variant."""
    name = variant or "mistral-7b"
    if name not in PUBLISHED:
        raise ValueError(f"no variant {variant!r}, only {', '.join(PUBLISHED)}")
    recipe = PUBLISHED[name]
    chips = 1
    for size in recipe.topology.partition(":")[2].split("x"):
        chips *= int(size)
    return PlanConfig(
        model=str(HERE / "plan" / f"{recipe.model}.json"),
        topology=recipe.topology,
        batch_size=recipe.rows * chips,
        rows_per_group=recipe.rows,
        max_length=recipe.length,
        mesh=MeshConfig(fsdp=-1),
        train=TrainConfig(remat=recipe.remat, loss_chunk=1024),
        optimizer=OptimizerConfig(weight_decay=0.1),
        decode_rows=0,
        prices=load_config_file(str(HERE / "prices.py")).prices,
    )
