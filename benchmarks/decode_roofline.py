"""How near the JAX engine's decoding comes to the chip's memory bandwidth.

    .venv/bin/python -m benchmarks.decode_roofline               (an H100, H200 or TPU: 1.5B, 128 rows, bfloat16)
    ... -m benchmarks.decode_roofline --shape configs/compare/7m.json --dtype float32 --bandwidth_gb_s 20    (a CPU)

A step cannot take less time than it takes to read the weights once and the keys and values of every row. Measured is
the second half of greedy answers: what N tokens take, less what N / 2 take, so that prompts do not count. Weights are
random.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.table import show
from w2sr_jax.core.files import read_json
from w2sr_jax.core.rows import row
from w2sr_jax.core.topology import memory_bytes_per_s
from w2sr_jax.engine.base import Sampling
from w2sr_jax.engine.jax_engine import JaxEngine
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

PROMPT = 64  # tokens


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="configs/plan/qwen2.5-1.5b.json", help="config.json of the model")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--rows", type=int, default=128, help="sequences decoded together")
    parser.add_argument("--tokens", type=int, default=512, help="new tokens of each, even")
    parser.add_argument("--runs", type=int, default=5, help="counted runs, after one that is not")
    parser.add_argument("--bandwidth_gb_s", type=float, default=0.0, help="of the memory, where the chip is not known")
    options = parser.parse_args(argv)
    device = jax.devices()[0]
    bandwidth = options.bandwidth_gb_s * 1e9 or memory_bytes_per_s(device.device_kind)
    if not bandwidth:
        print(f"decode_roofline: {device.device_kind}: unknown; give --bandwidth_gb_s", file=sys.stderr)
        return 2
    config = ModelConfig.from_hf(read_json(Path(options.shape)), options.shape)
    dtype = jnp.dtype(options.dtype)
    engine = JaxEngine.from_model(
        Decoder(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype), None, batch_size=options.rows
    )
    half = options.tokens // 2
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, config.vocab_size, PROMPT).tolist() for _ in range(options.rows)]

    def seconds(tokens: int) -> float:
        began = time.perf_counter()
        engine.generate(prompts, Sampling(max_tokens=tokens))
        return time.perf_counter() - began

    taken = [seconds(2 * half) - seconds(half) for _ in range(options.runs + 1)][1:]
    if min(taken) <= 0:
        print("decode_roofline: too few tokens to be told from noise; give more --tokens", file=sys.stderr)
        return 1
    read = step_bytes(config, dtype.itemsize, options.rows, PROMPT + 3 * half // 2)
    rates = [options.rows * half / one for one in taken]
    what = f"decoding, {Path(options.shape).stem}, {options.rows} rows, {options.dtype}"
    show([row(what, rates, [options.rows * bandwidth / read], "tokens/s", "the bandwidth roofline")])
    print(f"{statistics.median(rates) * read / options.rows / bandwidth:.0%} of {bandwidth / 1e9:,.0f} GB/s")
    return 0


def step_bytes(config: ModelConfig, itemsize: int, rows: int, slots: int) -> float:
    """That a step must read: all matrices but an untied embedding, and the keys and values of `slots` tokens a row."""
    layer = config.hidden_size * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    layer += 3 * config.hidden_size * config.intermediate_size
    weights = config.num_layers * layer + config.vocab_size * config.hidden_size
    cache = rows * slots * config.num_layers * 2 * config.num_kv_heads * config.head_dim
    return itemsize * (weights + cache)


if __name__ == "__main__":
    sys.exit(main())
