"""Base models from scratch, until they are good enough at careful answers."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from flax import nnx

from w2sr_jax.core.metrics import MetricWriter, Progress
from w2sr_jax.core.records import Problem
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.data.pack import Batch
from w2sr_jax.engine.base import Sampling
from w2sr_jax.engine.jax_engine import JaxEngine
from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.state import init_state
from w2sr_jax.learn.step import make_sft_step
from w2sr_jax.micro.config import PretrainConfig, SizeConfig
from w2sr_jax.micro.task import Chain, Task
from w2sr_jax.micro.tokenizer import END, PAD, VOCABULARY
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.params import param_specs

CONTEXT = 64  # tokens; a problem of five operations and its careful solution have 46
MAX_TOKENS = 40


@dataclasses.dataclass(frozen=True, slots=True)
class Pretrained:
    """A finished base model and how it got there."""

    model: Decoder
    steps: int
    tokens: int
    context: float  # how long the example is that a token belongs to, on average
    careful_pass_at_1: float


def model_config(size: SizeConfig, vocab_size: int = len(VOCABULARY)) -> ModelConfig:
    """An architecture over the task's vocabulary, with a head of its own (as Qwen2.5 has from 7B on)."""
    return ModelConfig(
        family="qwen2" if size.family == "qwen2" else "llama",
        attention_bias=size.family == "qwen2",
        vocab_size=vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        num_kv_heads=size.num_kv_heads,
        head_dim=size.hidden_size // size.num_heads,
        max_position_embeddings=CONTEXT,
        eos_token_ids=(VOCABULARY[END],),
        bos_token_id=VOCABULARY[END],
        pad_token_id=VOCABULARY[PAD],
    )


def new_model(size: SizeConfig, seed: int, vocab_size: int = len(VOCABULARY)) -> Decoder:
    """Random weights. Narrow layers need larger ones than the decoder's 0.02: matrices start at 1 / sqrt(inputs).

    The embedding starts at 0.5, since nothing else brings tokens into the residual stream, and the head at 0.05.
    """
    config = model_config(size, vocab_size)
    model = Decoder(config, rngs=nnx.Rngs(seed), scan_layers=False)
    outer, layers = param_specs(config)
    for name, spec in (outer | layers).items():
        if spec.std is None:
            continue
        scale = {"embed": 0.5 / 0.02, "lm_head": 0.05 / 0.02}.get(name, spec.shape[-2] ** -0.5 / 0.02)
        parameter = model.param(name)
        parameter.set_value(parameter[...] * scale)
    return model


def pretrain(
    config: PretrainConfig,
    size: SizeConfig,
    seed: int,
    data: Iterator[Batch],
    validation: list[Problem],
    workdir: Path,
    tick: Callable[[], None],
    task: type[Task] = Chain,
) -> Pretrained:
    """Trains until greedy Pass@1 on `validation`, with care forced, reaches config.target; the averaged weights count.

    Writes workdir/metrics.jsonl.

    Args:
        seed: of the weights.
        tick: called after each validation.
        task: what the problems are of.
    """
    tokenizer = load_tokenizer(workdir / "tokenizer")
    model = new_model(size, seed, len(tokenizer))
    graphdef, params = nnx.split(model)
    step_config = TrainConfig(dtype="float32", remat="none", scan_layers=False, loss_chunk=CONTEXT)
    train_step = make_sft_step(graphdef, config.optimizer, step_config)
    average = jax.tree.map(jnp.copy, params)
    state = init_state(params, make_optimizer(config.optimizer))
    engine = JaxEngine.from_model(nnx.merge(graphdef, average), tokenizer, batch_size=256)
    tokens, squares, score, done = 0, 0, -1.0, 0
    with MetricWriter(workdir) as writer, Progress(config.max_steps, f"{workdir.name}: pretraining") as progress:
        began = time.monotonic()
        while done < config.max_steps and score < config.target:
            batch = next(data)
            held = batch.segment_ids_BT > 0
            tokens += int(held.sum())
            squares += int(((2 * batch.positions_BT + 1) * held).sum())  # n^2 is the sum of the first n odd numbers
            rate = config.optimizer.learning_rate * min(1.0, (done + 1) / config.warmup_steps)
            state, metrics = train_step(state, batch, rate)
            average = _averaged(average, state.params, config.ema)
            done += 1
            if done % config.validate_every == 0 or done == config.max_steps:
                engine.update_weights(average)
                score = careful_pass_at_1(engine, validation, task)
                row = {name: float(value) for name, value in metrics.items()}
                writer.write(done - 1, row | {"careful_pass_at_1": score, "seconds": time.monotonic() - began})
                progress.update(done, loss=row["loss"], careful_pass_at_1=score)
                tick()
    logging.info("%s: %d steps, Pass@1 with care forced %.3f on validation", workdir.name, done, score)
    return Pretrained(nnx.merge(graphdef, average), done, tokens, squares / max(1, tokens), score)


def careful_pass_at_1(engine: JaxEngine, problems: list[Problem], task: type[Task] = Chain) -> float:
    """Greedy Pass@1 of responses that are made to begin with care: what the model could do, not what it does."""
    sampling = Sampling(max_tokens=MAX_TOKENS, stop_token_ids=(VOCABULARY[END],))
    starts = [task.careful_start(problem.problem) for problem in problems]
    prompts = [problem.problem + start for problem, start in zip(problems, starts)]
    texts = [start + one.text for start, (one,) in zip(starts, engine.generate(prompts, sampling))]
    with GraderPool() as pool:
        pairs = [(text, problem.answer) for text, problem in zip(texts, problems)]
        grades = pool.grade_many(pairs, [problem.verifier for problem in problems])
    return sum(grade.correct for grade in grades) / len(grades)


@functools.partial(jax.jit, donate_argnums=0)
def _averaged(average: Any, params: Any, decay: float) -> Any:
    return jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, average, params)
