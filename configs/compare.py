"""What `w2sr compare` compares: the same SFT in JAX and in PyTorch.

    w2sr compare --config=configs/compare.py:cpu --workdir=runs/compare

Variants: cpu (a 7M model on rows of 512 and of 2,048 tokens), cpu-packed (the same tokens, several traces a row), tiny
(seconds, for tests).
"""

from pathlib import Path

from w2sr_jax.core.config import DataConfig, MeshConfig, OptimizerConfig
from w2sr_jax.core.runtime import load_config_file
from w2sr_jax.core.stage_config import CompareConfig, RandomConfig, RecipeConfig, SFTConfig, TrainConfig

HERE = Path(__file__).parent
RECIPES = {"7b-from-1.5b": "qwen2.5-7b", "14b-from-1.5b": "qwen2.5-14b", "32b-from-1.5b": "qwen2.5-32b"}


def cpu(shape: str, *, packing: bool = False) -> CompareConfig:
    """float32 on every core. Rows are full: without packing each trace is longer than a row and cut to it."""
    return CompareConfig(
        sft=SFTConfig(
            model="random",
            data=DataConfig(
                problems="random",
                traces="random",
                template="plain",
                max_length=512,
                batch_size=8,
                packing=packing,
                overlong="drop" if packing else "truncate",
            ),
            optimizer=OptimizerConfig(learning_rate=3e-4, warmup_ratio=0.1, weight_decay=0.01),
            train=TrainConfig(dtype="float32", remat="none", scan_layers=False),
            mesh=MeshConfig(data=1, fsdp=1, tensor=1),
        ),
        random=RandomConfig(
            shape=str(HERE / "compare" / f"{shape}.json"),
            traces=256,
            shortest=64 if packing else 2048,
            longest=480 if packing else 2048,
        ),
        shapes=((8, 512), (2, 2048)),
        recipes=recipes(),
    )


def tiny() -> CompareConfig:
    """Two steps of what the others do."""
    config = cpu("tiny", packing=True)
    config.sft.data.max_length, config.sft.data.batch_size = 64, 4
    config.random.traces, config.random.shortest, config.random.longest = 32, 8, 40
    config.shapes, config.parity_steps, config.steps_per_run = (), 6, 1
    return config


def recipes() -> dict[str, RecipeConfig]:
    """The students' fine-tuning in configs/paper/qwen25.py."""
    found = {}
    for variant, shape in RECIPES.items():
        experiment = load_config_file(f"{HERE / 'paper' / 'qwen25.py'}:{variant}")
        found[variant] = RecipeConfig(
            shape=str(HERE / "plan" / f"{shape}.json"), max_length=experiment.max_length, epochs=experiment.epochs
        )
    return found


VARIANTS = {
    "cpu": lambda: cpu("7m"),
    "cpu-packed": lambda: cpu("7m", packing=True),
    "tiny": tiny,
}


def get_config(variant: str | None = None) -> CompareConfig:
    """One of VARIANTS; cpu without one."""
    if (variant or "cpu") not in VARIANTS:
        raise ValueError(f"no variant {variant!r}, only {', '.join(VARIANTS)}")
    return VARIANTS[variant or "cpu"]()
