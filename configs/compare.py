"""What `w2sr compare` compares: the same SFT in JAX and in PyTorch.

    w2sr compare --config=configs/compare.py:cpu --workdir=runs/compare

Variants:
  cpu          a 7M model: SFT on rows of 512 and of 2,048 tokens, GRPO updates, generation
  cpu-packed   its SFT on rows of several traces
  cpu-30m      generation by a 30M model
  micro        the student of the micro experiment
  gpu-0.5b     on GPUs: Qwen2.5's shape with random weights, 4,096 tokens, packed, bfloat16; its training steps were
               run on an H200 (BUILD_NOTES.md), the whole of it was not
  gpu-1.5b     likewise
  tiny         seconds, for tests

On several GPUs ours takes the mesh's fsdp axis and PyTorch FSDP2; each microbatch needs a row a device, so on eight of
them --config.sft.train.grad_accum=2. --config.peak_tflops is of one device. So is a price: configs/prices.py has some,
and --config.price.usd_per_device_hour sets any.
"""

from pathlib import Path

from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.config import DataConfig, MeshConfig, OptimizerConfig
from w2sr_jax.core.stage_config import SFTConfig, TrainConfig
from w2sr_jax.core.tool_config import CompareConfig, RandomConfig, RecipeConfig

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
            # Of chunks of 32 to 512 tokens a row, the fastest or nearly so in both shapes (BUILD_NOTES.md).
            train=TrainConfig(dtype="float32", remat="none", scan_layers=False, loss_chunk=128),
            mesh=MeshConfig(data=1, fsdp=1, tensor=1),
        ),
        random=RandomConfig(
            shape=str(HERE / "compare" / f"{shape}.json"),
            traces=256,
            shortest=64 if packing else 2048,
            longest=480 if packing else 2048,
        ),
        shapes=((8, 512), (2, 2048)),
        grpo_shapes=((16, 256),),
        grpo_loss_chunk=256,  # the whole row, whose logits then wait for the backward pass
        generate=(64, 64, 256),
        recipes=recipes(),
        prices=load_config_file(str(HERE / "prices.py")).prices,
    )


def cpu_packed() -> CompareConfig:
    """Training alone, where attention must keep the examples of a row apart."""
    config = cpu("7m", packing=True)
    config.grpo_shapes, config.generate = (), (0, 64, 256)
    return config


def cpu_30m() -> CompareConfig:
    """Generation alone, by a model whose matmuls take most of the time."""
    config = cpu("30m")
    config.shapes, config.grpo_shapes = (), ()
    return config


def micro() -> CompareConfig:
    """The micro experiment's student and its batches: 1.0M parameters, 32 rows of 48 tokens."""
    config = cpu("micro", packing=True)
    config.sft.data.max_length, config.sft.data.batch_size = 48, 32
    config.random.shortest, config.random.longest = 8, 30
    config.shapes, config.grpo_shapes, config.generate = ((32, 48),), ((128, 48),), (256, 256, 40)
    config.generate_tail, config.recipes = (0, 0, 0), {}
    return config


def gpu(shape: str, grad_accum: int) -> CompareConfig:
    """bfloat16 with float32 master weights on every GPU of the host.

    Nothing is recomputed, and layers are unrolled: scanned ones would copy what the backward pass needs into arrays of
    all layers, and out of them again. Fewer, larger microbatches add up gradients less often.
    """
    config = cpu("tiny", packing=True)
    config.sft.data.max_length, config.sft.data.batch_size = 4096, 16
    config.sft.train = TrainConfig(
        dtype="bfloat16", remat="none", scan_layers=False, loss_chunk=2048, grad_accum=grad_accum
    )
    config.sft.mesh = MeshConfig()
    config.random = RandomConfig(shape=str(HERE / "plan" / f"{shape}.json"), traces=1024, shortest=256, longest=3072)
    config.shapes, config.grpo_shapes, config.generate = ((16, 4096),), ((16, 2048),), (256, 64, 512)
    config.grpo_loss_chunk = 0
    # bfloat16 rounds at 2^-8 in each of dozens of layers, and the sides round in other places [ours].
    config.loss_tolerance, config.norm_tolerance, config.grpo_tolerance = 1e-2, 5e-2, 5e-2
    config.parity_steps, config.steps_per_run = 10, 1  # updates take seconds, and do not differ
    config.peak_tflops = 989.0  # H100 and H200, dense bfloat16 (NVIDIA's data sheets)
    return config


def tiny() -> CompareConfig:
    """A few updates of what the others do."""
    config = cpu("tiny", packing=True)
    config.sft.data.max_length, config.sft.data.batch_size = 64, 4
    config.random.traces, config.random.shortest, config.random.longest = 64, 4, 20
    config.shapes, config.grpo_shapes, config.generate = ((4, 64),), ((8, 64),), (6, 4, 8)
    config.parity_steps, config.grpo_parity_steps, config.steps_per_run = 6, 3, 1
    config.generate_tail, config.threads = (6, 4, 16), 1  # on a busy machine two threads wait for each other for ever
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
    "cpu-packed": cpu_packed,
    "cpu-30m": cpu_30m,
    "micro": micro,
    "gpu-0.5b": lambda: gpu("qwen2.5-0.5b", 2),
    "gpu-1.5b": lambda: gpu("qwen2.5-1.5b", 4),
    "tiny": tiny,
}


def get_config(variant: str | None = None) -> CompareConfig:
    """One of VARIANTS; cpu without one."""
    if (variant or "cpu") not in VARIANTS:
        raise ValueError(f"no variant {variant!r}, only {', '.join(VARIANTS)}")
    return VARIANTS[variant or "cpu"]()
