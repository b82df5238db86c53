"""How near an SFT step comes to a chip's peak, and which kernels it spends its time in.

    .venv/bin/python -m benchmarks.sft_step --kernels 20        (an H100 or H200: 1.5B, 16 packed rows of 4,096 tokens)
    ... -m benchmarks.sft_step --shape configs/compare/7m.json --rows 2 --length 512 --dtype float32 --peak_tflops 0.2

The step is that of `w2sr sft`; weights and tokens are random. MFU counts 6 N and causal attention within examples, of
tokens that are not padding, as `w2sr compare` does, which holds the same step against PyTorch.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.table import show
from w2sr_jax.core import cost
from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.files import read_json
from w2sr_jax.core.rows import row
from w2sr_jax.core.stage_config import ATTENTION, TrainConfig
from w2sr_jax.core.topology import peak_flops_per_s
from w2sr_jax.data.chat import Example
from w2sr_jax.data.pack import Batch, pack_rows
from w2sr_jax.data.pipeline import packed
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.state import TrainState
from w2sr_jax.learn.step import make_sft_step
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.model.remat import POLICIES
from w2sr_jax.twin.workloads import context

PROMPT = 16  # tokens
OPTIMIZER = OptimizerConfig(learning_rate=1e-4, weight_decay=0.01)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="configs/plan/qwen2.5-1.5b.json", help="config.json of the model")
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a row")
    parser.add_argument("--shortest", type=float, default=1 / 16, help="answer, as a share of a row")
    parser.add_argument("--longest", type=float, default=3 / 4, help="answer, likewise")
    parser.add_argument("--grad_accum", type=int, default=4, help="microbatches of a step")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--remat", default="none", choices=POLICIES)
    parser.add_argument("--loss_chunk", type=int, default=2048, help="tokens of a row whose logits exist at once")
    parser.add_argument("--attention", default="auto", choices=ATTENTION)
    parser.add_argument("--scan_layers", action="store_true", help="layers scanned instead of unrolled")
    parser.add_argument("--steps", type=int, default=5, help="counted ones, after two that are not")
    parser.add_argument("--peak_tflops", type=float, default=0.0, help="of the chip, where it is not known")
    parser.add_argument("--kernels", type=int, default=0, help="so many kernels of one more step, by their time")
    options = parser.parse_args(argv)
    kind = jax.devices()[0].device_kind
    peak = options.peak_tflops * 1e12 or peak_flops_per_s(kind)
    if not peak:
        print(f"sft_step: {kind}: unknown; give --peak_tflops", file=sys.stderr)
        return 2
    config = ModelConfig.from_hf(read_json(Path(options.shape)), options.shape)
    batch, row_examples = random_batch(options, config.vocab_size)
    train = TrainConfig(
        dtype=options.dtype,
        remat=options.remat,
        scan_layers=options.scan_layers,
        loss_chunk=options.loss_chunk,
        grad_accum=options.grad_accum,
        attention=options.attention,
    )
    state, step = compiled(config, train, batch, row_examples)
    seconds, losses = [], []
    for _ in range(2 + options.steps):
        began = time.perf_counter()
        state, metrics = step(state, batch, jnp.float32(1e-4))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
        losses.append(float(metrics["loss"]))
    tokens = int(np.sum(batch.segment_ids_BT > 0))
    shape = flops_shape(config)
    flops = cost.train_flops(tokens=tokens, context=context([np.asarray(batch.segment_ids_BT)]), **shape)
    what = (
        f"SFT, {Path(options.shape).stem}, {options.rows} x {options.length} in {options.grad_accum}, {options.dtype}"
    )
    rates = [tokens / one for one in seconds[2:]]
    print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}; {tokens} of {batch.tokens_BT.size} tokens are no padding")
    if found := (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"):
        print(f"peak memory {found / 2**30:.2f} GiB")
    show([row(what, rates, [tokens * peak / flops], "tokens/s", f"the peak, {peak / 1e12:,.0f} TFLOP/s")])
    if options.kernels:
        show_kernels(lambda: jax.block_until_ready(step(state, batch, jnp.float32(1e-4))), options.kernels)
    return 0


def random_batch(options: argparse.Namespace, vocab_size: int) -> tuple[Batch, int]:
    """A batch of random tokens, packed as the pipeline packs them, and the most examples of a row."""
    rng = np.random.default_rng(0)
    shortest, longest = (round(share * options.length) for share in (options.shortest, options.longest))
    lengths = (PROMPT + rng.integers(max(1, shortest), longest + 1, 64 * options.rows)).tolist()
    rows = packed(lengths, options.length)
    chosen = [rows[i] for i in rng.permutation(len(rows))[: options.rows]]
    examples = [Example(rng.integers(3, vocab_size, length).tolist(), PROMPT) for length in lengths]
    batch = pack_rows(examples, chosen, options.length)
    return batch, 1 + max(map(len, rows))


def compiled(config: ModelConfig, train: TrainConfig, batch: Batch, row_examples: int) -> tuple[TrainState, Any]:
    """Random weights and their optimizer, and the step for them; prints how long compiling took."""
    dtype = jnp.dtype(train.dtype)
    forms = {"scan_layers": train.scan_layers, "remat": train.remat, "attention": train.attention}

    def make() -> Decoder:
        return Decoder(config, rngs=nnx.Rngs(0), dtype=dtype, **forms)

    def fresh() -> TrainState:
        params = nnx.state(make())
        return TrainState(params, make_optimizer(OPTIMIZER).init(params), jnp.int32(0))

    graphdef = nnx.split(nnx.eval_shape(make))[0]
    step: Any = make_sft_step(graphdef, OPTIMIZER, train, None, row_examples)  # a jitted function
    began = time.perf_counter()
    program = step.lower(jax.eval_shape(fresh), batch, jnp.float32(0)).compile()
    temporary = program.memory_analysis().temp_size_in_bytes / 2**30
    print(f"compiled in {time.perf_counter() - began:.1f} s; {temporary:.2f} GiB of temporary memory", flush=True)
    return jax.jit(fresh)(), program


def show_kernels(work: Any, count: int) -> None:
    """Prints the kernels that take the most time of a device while `work` is done, those of one name together."""
    with tempfile.TemporaryDirectory(prefix="w2sr-profile-") as directory:
        with jax.profiler.trace(directory):
            work()
        data = jax.profiler.ProfileData.from_file(str(next(Path(directory).rglob("*.xplane.pb"))))
    total: dict[str, list[float]] = {}
    for plane in data.planes:
        for line in plane.lines if plane.name.startswith("/device:GPU") else ():
            for event in line.events if line.name.startswith("Stream") else ():
                total.setdefault(re.sub(r"[._]\d+(_\d+)*$", "", event.name), []).append(event.duration_ns / 1e6)
    print(f"\nkernels: {sum(map(sum, total.values())):.1f} ms; of each name: ms, how many")
    for name, times in sorted(total.items(), key=lambda pair: -sum(pair[1]))[:count]:
        print(f"{sum(times):10.3f} {len(times):6d}  {name[:90]}")


if __name__ == "__main__":
    sys.exit(main())
