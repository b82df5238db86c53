"""Loading and exporting a large checkpoint: rate against a plain copy of its files, and memory beyond the parameters.

    JAX_PLATFORMS=cpu .venv/bin/python -m benchmarks.load_export --config configs/plan/qwen2.5-7b.json --dir DIR

A checkpoint of that shape with random bfloat16 weights, in files of at most 5 GB, is written to DIR (twice its size is
needed) unless one is there. Loading, exporting and copying each run in a process of their own, which reports its peak
of resident memory; the exported weights are compared with the first ones by hash. Ends with 1 where a peak lies 2 GiB
or more above the parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

GIB = 2**30
ALLOWED = 2 * GIB  # of memory beyond the parameters


def generate(config: Path, directory: Path) -> None:
    """Random weights of that shape. One block of noise serves all tensors, from another place in each."""
    import ml_dtypes

    from w2sr_jax.model.config import ModelConfig
    from w2sr_jax.model.hf_keys import tensor_table
    from w2sr_jax.model.tensors import write_tensors

    model = ModelConfig.from_hf(json.loads(config.read_text()), str(config))
    dtype = np.dtype(ml_dtypes.bfloat16)
    noise = (np.random.default_rng(0).standard_normal(1 << 24, np.float32) * 0.02).astype(dtype)
    shapes = {tensor.name: tensor.shape for tensor in tensor_table(model)}

    def tensors() -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        for number, (name, shape) in enumerate(shapes.items()):
            yield name, lambda number=number, shape=shape: np.resize(np.roll(noise, 997 * number), shape)

    part = directory.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_tensors(part, tensors(), shapes, dtype, 5_000_000_000)
    shutil.copyfile(config, part / "config.json")
    part.rename(directory)


def load(directory: Path) -> dict[str, float]:
    """Parameters in bfloat16, as the files have them."""
    import jax.numpy as jnp
    from flax import nnx

    from w2sr_jax.model import hf

    began = time.perf_counter()
    model = hf.load(directory, dtype=jnp.bfloat16)
    size = sum(leaf.nbytes for leaf in nnx.to_flat_state(nnx.state(model)).leaves)
    return {"seconds": time.perf_counter() - began, "peak": peak_bytes(), "parameters": size}


def export(directory: Path) -> dict[str, float]:
    """The same, and out again."""
    import jax.numpy as jnp
    from flax import nnx

    from w2sr_jax.model import hf

    model = hf.load(directory, dtype=jnp.bfloat16)
    size = sum(leaf.nbytes for leaf in nnx.to_flat_state(nnx.state(model)).leaves)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    began = time.perf_counter()
    hf.save(model, directory.with_name("exported"))
    return {"seconds": time.perf_counter() - began, "peak": peak_bytes(), "parameters": size}


def copy(directory: Path) -> dict[str, float]:
    """A plain copy of the files, on the disk when it ends."""
    target = directory.with_name("copied")
    shutil.rmtree(target, ignore_errors=True)
    began = time.perf_counter()
    shutil.copytree(directory, target)
    for path in target.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return {"seconds": seconds, "peak": peak_bytes(), "parameters": 0}


def peak_bytes() -> int:
    """Of this process's resident memory (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


STEPS = {"load": load, "export": export, "copy": copy}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a config.json")
    parser.add_argument("--dir", type=Path, required=True, help="where the checkpoints go")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    directory = options.dir / f"random-{options.config.stem}"
    if options.step:
        print(json.dumps(STEPS[options.step](directory)))
        return 0
    if not directory.exists():
        generate(options.config, directory)
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB in {len(list(directory.glob('*.safetensors')))} files\n", flush=True)
    found = {}
    for step in STEPS:
        argv = [sys.executable, "-m", "benchmarks.load_export", f"--config={options.config}", f"--dir={options.dir}"]
        done = subprocess.run([*argv, f"--step={step}"], stdout=subprocess.PIPE, check=True, text=True)
        found[step] = json.loads(done.stdout.splitlines()[-1])
    from w2sr_jax.model.hf import weights_hash

    same = weights_hash(directory) == weights_hash(options.dir / "exported")
    shutil.rmtree(options.dir / "exported")
    print("| what | seconds | GB/s | rate / copy's | peak memory, GiB | beyond the parameters, GiB |")
    print("|---|---|---|---|---|---|")
    for step, one in found.items():
        beyond = one["peak"] - one["parameters"]
        rate = size / one["seconds"] / 1e9
        ratio = found["copy"]["seconds"] / one["seconds"]
        cells = (step, f"{one['seconds']:.1f}", *(f"{x:.2f}" for x in (rate, ratio, one["peak"] / GIB, beyond / GIB)))
        print(f"| {' | '.join(cells)} |")
    over = [step for step, one in found.items() if one["peak"] - one["parameters"] >= ALLOWED]
    print(f"\nexported weights equal the first ones: {same}; 2 GiB or more beyond the parameters: {over or 'none'}")
    return int(bool(over) or not same)


if __name__ == "__main__":
    sys.exit(main())
