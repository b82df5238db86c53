"""What the multi-process tests compute, in this process on fake devices or in real ones: the same code for both."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from w2sr_jax.core.config import (
    CheckpointConfig,
    DataConfig,
    MeshConfig,
    OptimizerConfig,
    SamplingConfig,
    flatten,
    to_dict,
)
from w2sr_jax.core.files import write_json, write_jsonl
from w2sr_jax.core.mesh import batch_ways, local_rows, mesh_or_none, replicated
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.core.stage_config import GRPOConfig, GRPOLossConfig, SFTConfig, TrainConfig
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.data.pipeline import Pipeline, make_pipeline
from w2sr_jax.learn.checkpoint import Checkpointer
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.policy import Policy
from w2sr_jax.learn.rollout import pad_rollout
from w2sr_jax.learn.state import abstract_state
from w2sr_jax.learn.step import RolloutBatch
from w2sr_jax.micro.config import SizeConfig
from w2sr_jax.micro.pretrain import CONTEXT, model_config
from w2sr_jax.micro.tokenizer import save_tokenizer
from w2sr_jax.model import hf
from w2sr_jax.model.decoder import Decoder

STEPS = 30
ROLLOUTS, RESPONSES = 15, 16  # two updates each
SIZE = SizeConfig(hidden_size=16, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2)
TRAIN = TrainConfig(dtype="float32", remat="none", loss_chunk=32)
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_ratio=0.0, weight_decay=0.01)


def make_inputs(root: Path, **changes: int) -> Path:
    """A random model whose vocabulary splits by 8, its tokenizer, 40 problems and their traces."""
    save_tokenizer(root / "tokenizer", CONTEXT)
    config = dataclasses.replace(model_config(SIZE), vocab_size=24, **changes)
    model = Decoder(config, rngs=nnx.Rngs(0))
    hf.save(model, root / "model", "float32", tokenizer_from=root / "tokenizer")
    rng = random.Random(0)
    problems = [
        Problem(id=f"p{i:02d}", problem=f"{i:02d}+{rng.randint(3, 9)}=?", answer="3", verifier="exact")
        for i in range(40)
    ]
    traces = [
        Trace(
            problem_id=problem.id,
            sample=0,
            response=f"\\boxed{{{rng.randint(1, 4)}}}",
            response_tokens=4,
            finish_reason="stop",
            teacher="t",
        )
        for problem in problems
    ]
    write_jsonl(root / "problems.jsonl", problems)
    write_jsonl(root / "traces.jsonl", traces)
    return root


def mesh_config(sizes: tuple[int, int, int]) -> MeshConfig:
    return MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])


def sft_config(inputs: Path, sizes: tuple[int, int, int], **changes: Any) -> SFTConfig:
    """30 steps of 8 rows in float32; an epoch is two and a half steps."""
    data = DataConfig(
        problems=str(inputs / "problems.jsonl"),
        traces=str(inputs / "traces.jsonl"),
        template="plain",
        max_length=32,
        batch_size=8,
    )
    config = SFTConfig(
        model=str(inputs / "model"),
        data=data,
        steps=STEPS,
        optimizer=OPTIMIZER,
        train=TRAIN,
        checkpoint=CheckpointConfig(every_steps=0),
        export_dtype="float32",
        mesh=mesh_config(sizes),
    )
    return dataclasses.replace(config, **changes)


def flags_of(config: Any) -> list[str]:
    """The command-line flags that make the defaults into this config."""
    default = flatten(to_dict(type(config)()))
    return [f"--config.{key}={value}" for key, value in flatten(to_dict(config)).items() if value != default[key]]


def grpo_config(inputs: Path, sizes: tuple[int, int, int]) -> GRPOConfig:
    """Two minibatches a rollout, with a reference: every pass that GRPO makes."""
    return GRPOConfig(
        model=str(inputs / "model"),
        problems=str(inputs / "problems.jsonl"),
        template="plain",
        steps=ROLLOUTS,
        prompts_per_step=4,
        minibatch_prompts=2,
        sampling=SamplingConfig(max_tokens=6, temperature=1.0, n=RESPONSES // 4),
        loss=GRPOLossConfig(kl=0.01),
        optimizer=OPTIMIZER,
        train=TRAIN,
        export_dtype="float32",
        mesh=mesh_config(sizes),
    )


def fixed_rollout(seed: int) -> RolloutBatch:
    """Random prompts and responses with random advantages."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(1, 20, rng.integers(3, 8)).tolist() for _ in range(RESPONSES)]
    responses = [rng.integers(1, 20, rng.integers(1, 7)).tolist() for _ in range(RESPONSES)]
    logprobs = [rng.normal(-3, 0.2, len(response)).tolist() for response in responses]
    return pad_rollout(prompts, responses, logprobs, rng.normal(size=RESPONSES), 16)


def learn(inputs: Path, sizes: tuple[int, int, int], workdir: Path) -> None:
    """GRPO's updates on fixed rollouts: losses.json and export/."""
    config = grpo_config(inputs, sizes)
    policy = Policy.load(config, inputs / "model", mesh_or_none(config.mesh))
    losses = [policy.learn(fixed_rollout(i), i)["loss"] for i in range(config.steps)]
    write_json(workdir / "losses.json", losses)
    policy.export(workdir / "export", inputs / "model")


def restore(inputs: Path, sizes: tuple[int, int, int], checkpoints: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The newest checkpoint of an SFT run, restored onto a mesh.

    Returns:
        (all leaves, whole; the tokens of this process's rows of the next batch).
    """
    config = sft_config(inputs, sizes)
    mesh = mesh_or_none(config.mesh)
    pipeline = next_batches(config, mesh)
    params = nnx.split(hf.load(config.model, mesh))[1]
    with Checkpointer(checkpoints, config.checkpoint) as checkpointer:
        found = checkpointer.restore_latest(abstract_state(params, make_optimizer(config.optimizer), mesh))
    assert found is not None
    _, state, extra = found
    if mesh is not None:
        ways = batch_ways(mesh)
        assert len(local_rows(mesh, 8)) * jax.process_count() >= 8, ways
        state = jax.jit(lambda x: x, out_shardings=replicated(mesh))(state)
    leaves = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}
    pipeline.set_state(extra["pipeline"])
    return leaves, np.asarray(next(pipeline).tokens_BT)


def next_batches(config: SFTConfig, mesh: Any) -> Pipeline:
    rows = None if mesh is None else local_rows(mesh, config.data.batch_size)
    return make_pipeline(config.data, load_tokenizer(config.model), rows=rows, model_dir=config.model)
