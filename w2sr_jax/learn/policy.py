"""The policy that GRPO trains: its state, its frozen reference, and one rollout's updates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.mesh import batch_ways
from w2sr_jax.core.stage_config import GRPOConfig
from w2sr_jax.learn.losses import MAX_METRICS
from w2sr_jax.learn.optim import learning_rate, make_optimizer
from w2sr_jax.learn.pace import settled
from w2sr_jax.learn.rollout import bucket, pad_rollout
from w2sr_jax.learn.state import TrainState, abstract_state, frozen, init_state, load_model, place_batch, place_rate
from w2sr_jax.learn.step import RolloutBatch, Step, make_grpo_step, make_logprob_fn
from w2sr_jax.model import hf


@dataclasses.dataclass(slots=True)
class Policy:
    """Weights and optimizer in `state`, which every update donates and replaces."""

    config: GRPOConfig
    mesh: Mesh | None
    graphdef: Any
    state: TrainState
    reference: Any  # parameters; None where no KL is asked for
    step: Step
    logprobs: Callable[[Any, Any], jax.Array]

    @classmethod
    def load(cls, config: GRPOConfig, directory: Path, mesh: Mesh | None) -> Self:
        """The policy before its first update, which is its own reference.

        Raises:
            UsageError: an update's rows do not split over the mesh and into microbatches.
        """
        check_rows(config, mesh)
        train, temperature = config.train, config.sampling.temperature
        graphdef, params = nnx.split(load_model(directory, mesh, train))
        return cls(
            config=config,
            mesh=mesh,
            graphdef=graphdef,
            reference=frozen(params, train.dtype) if config.loss.kl else None,
            state=init_state(params, make_optimizer(config.optimizer), mesh),
            step=make_grpo_step(
                graphdef,
                config.optimizer,
                config.loss,
                train,
                mesh,
                max_tokens=config.sampling.max_tokens,
                temperature=temperature,
                on_policy=updates_per_rollout(config) == 1,
            ),
            logprobs=make_logprob_fn(graphdef, train, mesh, temperature=temperature),
        )

    def abstract(self) -> TrainState:
        """What a checkpoint of `state` is restored as."""
        return abstract_state(self.state.params, make_optimizer(self.config.optimizer), self.mesh)

    def learn(self, rollout: RolloutBatch, done: int) -> dict[str, float]:
        """All updates of one rollout.

        Args:
            rollout: numpy, every prompt's samples in consecutive rows.
            done: rollouts before this one.

        Returns:
            metrics, averaged over the updates; learning_rate is the last one's. old_logprobs_seconds and
            reference_seconds are those of the passes before the updates (0 without one), gradient_seconds the updates'.
        """
        config, values = self.config, list[dict[str, jax.Array]]()
        clock = _Laps()
        parts = self._minibatches(rollout)
        updates = updates_per_rollout(config)
        if updates > 1:
            parts = [replace(p, old_logprobs_BT=settled(self.logprobs(self.state.params, p))) for p in parts]
        clock.lap("old_logprobs_seconds", parts)
        if self.reference is not None:
            parts = [replace(p, ref_logprobs_BT=settled(self.logprobs(self.reference, p))) for p in parts]
        clock.lap("reference_seconds", parts)
        for part in parts * config.epochs_per_step:
            rate = learning_rate(config.optimizer, done * updates + len(values), config.steps * updates)
            self.state, metrics = settled(self.step(self.state, part, place_rate(rate, self.mesh)))
            values.append(metrics)
        fetched = jax.device_get(values)
        clock.lap("gradient_seconds", self.state)
        joined = {
            name: float((np.max if name in MAX_METRICS else np.mean)([v[name] for v in fetched])) for name in fetched[0]
        }
        return joined | clock.laps | {"learning_rate": rate}

    def export(self, directory: Path, tokenizer_from: Path, dtype: str = "", params: Any = None) -> None:
        """Writes the policy (or `params` in its place) as a Hugging Face directory, by default in export_dtype."""
        model = nnx.merge(self.graphdef, self.state.params if params is None else params)
        hf.save(model, directory, dtype or self.config.export_dtype, tokenizer_from=tokenizer_from)

    def score(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], params: Any = None
    ) -> list[np.ndarray]:
        """Logprobs of every response token under the policy (or `params`), of the plain softmax, float32."""
        length = bucket(max(len(p) + len(r) for p, r in zip(prompts, responses)))
        nothing = [[0.0] * len(response) for response in responses]
        ways = 1 if self.mesh is None else batch_ways(self.mesh)
        rows = -(-len(prompts) // ways) * ways  # the mesh takes whole shares only: the first row fills the last one
        order = [index if index < len(prompts) else 0 for index in range(rows)]
        batch = pad_rollout(
            [prompts[i] for i in order],
            [responses[i] for i in order],
            [nothing[i] for i in order],
            np.zeros(rows),
            length,
        )
        batch = place_batch(batch, self.mesh)
        logprobs = make_logprob_fn(self.graphdef, replace(self.config.train, grad_accum=1), self.mesh)
        found_BT = np.asarray(logprobs(self.state.params if params is None else params, batch))
        return [
            found_BT[row, len(prompt) - 1 : len(prompt) - 1 + len(response)]
            for row, (prompt, response) in enumerate(zip(prompts, responses))
        ]

    def disturbed(self) -> Any:
        """Parameters of which each differs much from the policy's: what an engine holds that took only some shows."""

        def disturb(params: Any) -> Any:
            keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(params))))

            def disturb_one(x: jax.Array) -> jax.Array:
                return x + (0.5 * jnp.abs(x) + 0.01) * jax.random.normal(next(keys), x.shape, x.dtype)

            return jax.tree.map(disturb_one, params)

        shardings = None if self.mesh is None else jax.tree.map(lambda leaf: leaf.sharding, self.state.params)
        return jax.jit(disturb, out_shardings=shardings)(self.state.params)

    def _minibatches(self, rollout: RolloutBatch) -> list[RolloutBatch]:
        """Consecutive rows, placed on the mesh."""
        rows = self.config.minibatch_prompts * self.config.sampling.n
        starts = range(0, len(rollout.advantages_B), rows)
        parts = [jax.tree.map(lambda x, i=i: x[i : i + rows], rollout) for i in starts]
        return [place_batch(part, self.mesh) for part in parts]


class _Laps:
    """Wall seconds of one thing after another; each is waited for, which costs nothing beside a pass of the model."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._began = time.monotonic()

    def lap(self, name: str, results: Any) -> None:
        jax.block_until_ready(results)
        now = time.monotonic()
        self.laps[name], self._began = now - self._began, now


def check_rows(config: GRPOConfig, mesh: Mesh | None) -> None:
    """Raises UsageError if the rows of an update do not split: before the first rollout, which takes long, is lost."""
    rows, ways = config.minibatch_prompts * config.sampling.n, 1 if mesh is None else batch_ways(mesh)
    micro = config.train.grad_accum
    if rows % (ways * micro):
        raise UsageError(
            f"config.minibatch_prompts x config.sampling.n: {config.minibatch_prompts} x {config.sampling.n} = {rows} "
            f"rows do not split into config.train.grad_accum = {micro} microbatches on {ways} device groups"
        )


def updates_per_rollout(config: GRPOConfig) -> int:
    """1 is on-policy: the policy that is updated is the one that was sampled."""
    return config.epochs_per_step * (config.prompts_per_step // config.minibatch_prompts)
