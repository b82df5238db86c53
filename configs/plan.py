"""Plans of full fine-tuning Qwen2.5: 4,096 tokens, 128 rows a step, as in the official recipe.

    w2sr plan --config=configs/plan.py:qwen2.5-7b --config.topology=v6e:4x4 --workdir=runs/plan/7b-v6e-16

Variants: qwen2.5-0.5b, -1.5b, -7b, -14b, -32b. configs/plan/ holds their sizes (config.json without what no plan
needs), configs/plan/topologies.json the slices of the table in configs/plan/README.md, configs/prices.py the prices.
"""

from pathlib import Path

from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.tool_config import PlanConfig

HERE = Path(__file__).parent
MODELS = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-14b", "qwen2.5-32b")


def get_config(variant: str | None = None) -> PlanConfig:
    """A model; qwen2.5-0.5b without a variant."""
    model = variant or MODELS[0]
    if model not in MODELS:
        raise ValueError(f"no variant {variant!r}, only {', '.join(MODELS)}")
    return PlanConfig(
        model=str(HERE / "plan" / f"{model}.json"),
        topology="v6e:4x4",
        batch_size=128,
        max_length=4096,
        prices=load_config_file(str(HERE / "prices.py")).prices,
    )
