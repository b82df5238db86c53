"""Configs of the stages around an experiment: plan, compare, doctor. Those of its own stages are in stage_config.py."""

import dataclasses
import os

from w2sr_jax.core.config import MeshConfig, OptimizerConfig, PriceConfig, opt
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import ENGINES, GRPOLossConfig, SFTConfig, TrainConfig

PEERS = ("eager", "compile", "trl")  # transformers by itself, under torch.compile, and TRL's trainer


@dataclasses.dataclass(slots=True, kw_only=True)
class PriceTable:
    """What a device costs, by its name; a config file (configs/prices.py) holds one."""

    prices: dict[str, PriceConfig] = opt(dict, "device -> USD an hour and where that was read")


@dataclasses.dataclass(slots=True, kw_only=True)
class PlanConfig:
    """`w2sr plan`: the SFT step and the decode step compiled for a slice of chips that need not be there."""

    model: str = opt(
        help="a config.json, a Hugging Face directory, a training workdir or a hub id (no weights are read)", reads=True
    )
    topology: str = opt(help="v5e:AxB, v5p:AxBxC, v6e:AxB or cpu:N")
    batch_size: int = opt(128, "rows of an optimizer step", minimum=1)
    max_length: int = opt(4096, "tokens of a row", minimum=8)
    rows_per_group: int = opt(
        1, "rows of a microbatch on each data group; sets train.grad_accum, 0 takes it as it is", minimum=0
    )
    mesh: MeshConfig = opt(MeshConfig, "")
    train: TrainConfig = opt(TrainConfig, "")
    optimizer: OptimizerConfig = opt(OptimizerConfig, "")
    decode_rows: int = opt(64, "sequences decoded together; 0 leaves the decode step out", minimum=0)
    decode_slots: int = opt(2048, "slots of the decode step's cache", minimum=16)
    suggest: bool = opt(False, "search mesh, microbatch and remat for the cheapest that fits")
    suggest_compiles: int = opt(6, "most compilations of that search", minimum=1)
    compile_limit_s: float = opt(3600.0, "longest compilation, in seconds", minimum=1.0)
    save_hlo: bool = opt(False, "the compiled program's text, beside the compiler's answer (compiled/KEY.hlo)")
    prices: dict[str, PriceConfig] = opt(dict, "chip -> its price; configs/plan.py takes configs/prices.py")
    price: PriceConfig = opt(PriceConfig, "")  # of one chip, instead of the table's


@dataclasses.dataclass(slots=True, kw_only=True)
class RandomConfig:
    """A model and traces without knowledge, made in the workdir: speed does not depend on what is learnt."""

    shape: str = opt("", "config.json whose sizes the model gets; empty: config.sft's own model and data", reads=True)
    traces: int = opt(256, "how many", minimum=1)
    shortest: int = opt(64, "tokens of the shortest response", minimum=1)
    longest: int = opt(480, "tokens of the longest response", minimum=1)
    seed: int = opt(0, "of weights and traces", minimum=0)


@dataclasses.dataclass(slots=True, kw_only=True)
class RecipeConfig:
    """The SFT of a whole experiment, whose cost is extrapolated by FLOPs from what was measured."""

    shape: str = opt(help="config.json of its student", reads=True)
    traces: int = opt(8400, "training examples: MATH levels 3 to 5 are about 8.4k, one trace each", minimum=1)
    max_length: int = opt(4096, "tokens of a row; without packing each example takes one", minimum=1)
    epochs: float = opt(5.0, "passes", minimum=0.0)


@dataclasses.dataclass(slots=True, kw_only=True)
class CompareConfig:
    """`w2sr compare`: the same training in JAX and in PyTorch, in turns on one machine."""

    sft: SFTConfig = opt(SFTConfig, "")
    random: RandomConfig = opt(RandomConfig, "")
    peers: tuple[str, ...] = opt(PEERS, f"columns beside ours: {', '.join(PEERS)}")
    shapes: tuple[tuple[int, int], ...] = opt((), "SFT: rows x tokens of each batch shape")
    parity_steps: int = opt(100, "first SFT updates, whose losses and gradient norms must be the same", minimum=1)
    more_parity_steps: int = opt(20, "likewise, on each shape after the first", minimum=1)
    loss_tolerance: float = opt(1e-4, "largest relative difference of an SFT update's loss", minimum=0.0)
    norm_tolerance: float = opt(1e-3, "largest relative difference of its gradient norm", minimum=0.0)
    grpo_shapes: tuple[tuple[int, int], ...] = opt((), "GRPO: responses x tokens of each minibatch, groups of 8")
    grpo_loss: GRPOLossConfig = opt(lambda: GRPOLossConfig(kl=1e-4, entropy=1e-3), "")
    grpo_loss_chunk: int = opt(0, "train.loss_chunk of GRPO's updates; 0 is that of SFT", minimum=0)
    grpo_parity_steps: int = opt(8, "first GRPO updates that must be the same, each on another rollout", minimum=1)
    grpo_tolerance: float = opt(
        1e-4, "largest difference of a GRPO loss, and relative one of its gradient norm", minimum=0.0
    )
    generate: tuple[int, int, int] = opt(
        (0, 64, 256), "generation: prompts (0 leaves it out), sequences together, new tokens of each"
    )
    generate_tail: tuple[int, int, int] = opt(
        (256, 64, 384),
        "a second load, sampled: prompts (0 leaves it out), mean and most tokens of answers that end by chance; more "
        "prompts than sequences together, so that engines refill the rows of those that have ended",
    )
    runs: int = opt(5, "counted turns of each side, after one that is not", minimum=5)
    steps_per_run: int = opt(3, "counted updates of a turn, after one that is not", minimum=1)
    threads: int = opt(0, "cores of each side; 0 is all", minimum=0)
    peak_tflops: float = opt(0.0, "of one device in the training dtype, for MFU; 0 leaves it out", minimum=0.0)
    prices: dict[str, PriceConfig] = opt(dict, "device -> its price; configs/compare.py takes configs/prices.py")
    price: PriceConfig = opt(PriceConfig, "")  # of one device, instead of the table's
    recipes: dict[str, RecipeConfig] = opt(dict, "name -> a whole recipe, to be costed")

    def check(self) -> None:
        for peer in self.peers:
            if peer not in PEERS:
                raise UsageError(f"config.peers: {peer!r} is none of {', '.join(PEERS)}")
        if self.random.shortest > self.random.longest:
            raise UsageError(f"config.random.shortest: {self.random.shortest} is above longest={self.random.longest}")
        for key, shapes, unit in (("shapes", self.shapes, 1), ("grpo_shapes", self.grpo_shapes, 8)):
            for rows, tokens in shapes:
                if rows < unit or rows % unit or tokens < 8:
                    raise UsageError(f"config.{key}: {rows} x {tokens}: rows come in {unit}s, tokens from 8")
        loss = self.grpo_loss
        if (loss.advantage, loss.ratio, loss.aggregate, loss.tis_cap) != ("grpo", "token", "token_mean", 0.0):
            raise UsageError(
                "config.grpo_loss: the twin computes advantage=grpo, ratio=token, aggregate=token_mean, tis_cap=0"
            )
        for key, value in (
            ("optimizer.moments", self.sft.optimizer.moments),
            ("train.grad_dtype", self.sft.train.grad_dtype),
        ):
            if value != "float32":
                raise UsageError(f"config.sft.{key}: the PyTorch twin has float32 only, got {value}")
        if self.threads > (cores := len(os.sched_getaffinity(0))):
            raise UsageError(f"config.threads: {self.threads} are more than the {cores} cores that may be used")
        if self.generate_tail[0] and not (0 < self.generate_tail[1] <= self.generate_tail[2]):
            raise UsageError(f"config.generate_tail: prompts, mean and most tokens, got {self.generate_tail}")
        if not (self.shapes or self.grpo_shapes or self.generate[0]):
            raise UsageError("config.shapes, config.grpo_shapes, config.generate: nothing to compare; set one of them")


@dataclasses.dataclass(slots=True, kw_only=True)
class DoctorConfig:
    """`w2sr doctor`: what a run needs of its hosts; what is left at 0 or empty is shown and not demanded."""

    mesh: MeshConfig = opt(MeshConfig, "")
    devices: int = opt(0, "how many there should be on all hosts together; 0 is any number", minimum=0)
    device_kind: str = opt("", "what they should be, as JAX names it ('TPU v6 lite'); empty is anything")
    model: str = opt(
        "", "a model that should be at hand on every host: directory, training workdir or hub id", reads=True
    )
    engine: str = opt("jax", "that the run will use; vllm must then be installed", choices=ENGINES)
    bucket: str = opt("", "a path to write a small object to: gs://BUCKET/DIR, or a mounted directory")
    all_reduce_mib: tuple[float, ...] = opt((0.25, 4.0, 64.0), "sizes that are timed, in MiB a device, float32")
    min_all_reduce_gb_s: float = opt(0.0, "smallest algorithm bandwidth at the best of these sizes", minimum=0.0)
    max_clock_skew_s: float = opt(1.0, "largest difference of the hosts' clocks, in seconds", minimum=0.0)
    write_mib: int = opt(64, "size of the file that is written to the workdir", minimum=1)
    min_write_mib_s: float = opt(20.0, "a slower workdir is warned of", minimum=0.0)
    min_free_disk_gib: float = opt(5.0, "in the workdir and in the Hugging Face cache", minimum=0.0)
    min_free_memory_gib: float = opt(2.0, "of each host", minimum=0.0)
    min_open_files: int = opt(1024, "soft limit of each process", minimum=0)
    min_shared_memory_gib: float = opt(0.5, "/dev/shm; less is a failure with engine=vllm, else warned of", minimum=0.0)

    def check(self) -> None:
        if not self.all_reduce_mib or min(self.all_reduce_mib) <= 0:
            raise UsageError(f"config.all_reduce_mib: expected sizes above 0, got {self.all_reduce_mib}")
