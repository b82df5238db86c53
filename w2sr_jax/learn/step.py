"""The jitted steps: one SFT update, one GRPO update, and the log-probabilities that GRPO needs beforehand.

Gradient accumulation is exact: each microbatch divides by the totals of the whole batch, so that its gradients are
shares that add up, and any split of the same rows follows one trajectory.

The makers return one and the same jitted function for equal arguments; an experiment of many stages on one model
shape compiles once. What changes from stage to stage (weights, learning rate) is an argument of the step.

Shape letters: B rows of the batch, T time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from w2sr_jax.core import mesh as mesh_lib
from w2sr_jax.core.compiler_options import compiler_options
from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import GRPOLossConfig, TrainConfig
from w2sr_jax.learn import losses, optim
from w2sr_jax.learn.state import TrainState, tree_shardings
from w2sr_jax.model.kernels.choice import row_examples_bound

Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]
# (params, microbatch, whole batch) -> (share of the loss, shares of the metrics)
LossShare = Callable[[Any, Any, Any], tuple[jax.Array, Metrics]]
Accumulation = tuple[int, str]  # microbatches, dtype of the sum of their gradients


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RolloutBatch:
    """Responses, one a row, padded on the right: the fields of an SFT batch, then what the policy loss needs."""

    tokens_BT: Any  # int32, prompt and response
    targets_BT: Any  # int32, tokens shifted by one
    loss_mask_BT: Any  # float32, 1 where the target is a response token or the closing EOS
    positions_BT: Any  # int32
    segment_ids_BT: Any  # int32, 0 is padding
    old_logprobs_BT: Any  # float32, of the policy at the rollout, by `make_logprob_fn`
    ref_logprobs_BT: Any  # float32, of the frozen reference; zeros when the KL weight is 0
    sampler_logprobs_BT: Any  # float32, as the engine reported them
    advantages_B: Any  # float32


def make_sft_step(
    graphdef: nnx.GraphDef[Any],
    optimizer: OptimizerConfig,
    train: TrainConfig,
    mesh: Mesh | None = None,
    row_examples: int = 0,
) -> Step:
    """step(state, batch, lr) -> (state, {loss, grad_norm, tokens}): the mean NLL of the masked targets, one update.

    Args:
        graphdef: of the Decoder, whose own dtype, remat and scan_layers hold (train's are for whoever builds it).
        optimizer: its learning rate and schedule are not looked at; `lr` is.
        train: loss_chunk, grad_accum and grad_dtype.
        mesh: where batch and parameters are split; None is a single device.
        row_examples: the most that a row holds, padding counted as one, which attention keeps apart; 0 is not known.
            Where each has one, padded on the right or not, no token sees padding: with 1 no mask is computed but the
            causal one.

    The state is donated. batch has tokens_BT, targets_BT, loss_mask_BT, positions_BT and segment_ids_BT.
    """
    most = row_examples_bound(row_examples, mesh)
    return _sft_step(graphdef, _optimizer_key(optimizer), train.loss_chunk, _accumulation(train), mesh, most)


def make_grpo_step(
    graphdef: nnx.GraphDef[Any],
    optimizer: OptimizerConfig,
    loss: GRPOLossConfig,
    train: TrainConfig,
    mesh: Mesh | None = None,
    *,
    max_tokens: int = 0,
    temperature: float = 1.0,
    on_policy: bool = False,
) -> Step:
    """step(state, rollout_batch, lr) -> (state, metrics): one update on a minibatch of responses.

    Args:
        graphdef, optimizer, train, mesh: as in `make_sft_step`.
        loss: the policy loss.
        max_tokens: longest response, for aggregate "constant".
        temperature: of the policy that is trained; the same goes to `make_logprob_fn`.
        on_policy: the policy itself serves as the old one (ratio exactly 1): for a rollout that is used for a single
            update, no old_logprobs_BT are needed, and no pass to compute them.
    """
    if loss.aggregate == "constant" and max_tokens < 1:
        raise UsageError('config.loss.aggregate: "constant" needs max_tokens, the longest response')
    if loss.tis_cap > 0 and temperature != 1.0:
        raise UsageError("config.loss.tis_cap: the sampler's logprobs are of temperature 1; train at temperature 1")
    options = (max_tokens, temperature, on_policy)
    return _grpo_step(
        graphdef, _optimizer_key(optimizer), _key(loss), train.loss_chunk, _accumulation(train), mesh, options
    )


def make_logprob_fn(
    graphdef: nnx.GraphDef[Any], train: TrainConfig, mesh: Mesh | None = None, *, temperature: float = 1.0
) -> Callable[[Any, Any], jax.Array]:
    """logprobs(params, batch) -> float32 logprobs_BT of the targets, 0 off the mask; in grad_accum microbatches.

    A row of the batch has one example, padded on the right.
    """
    return _logprob_fn(graphdef, train.loss_chunk, train.grad_accum, mesh, temperature)


@functools.lru_cache(maxsize=32)
def _sft_step(
    graphdef: Any, optimizer: Any, chunk: int, accumulation: Accumulation, mesh: Mesh | None, row_examples: int
) -> Step:
    def share(params: Any, micro: Any, whole: Any) -> tuple[jax.Array, Metrics]:
        model = nnx.merge(graphdef, params)
        segment_ids_BT = None if row_examples == 1 else micro.segment_ids_BT
        hidden = model(micro.tokens_BT, micro.positions_BT, segment_ids_BT, mesh=mesh, row_examples=row_examples)
        total, count = losses.nll_sum(hidden, model.head(), micro.targets_BT, micro.loss_mask_BT, chunk, mesh=mesh)
        return total / losses.totals(whole.loss_mask_BT).tokens, {"tokens": count}

    update = _update(graphdef, share, optimizer, accumulation, mesh)
    return jax.jit(update, donate_argnums=0, compiler_options=compiler_options(mesh))


@functools.lru_cache(maxsize=32)
def _grpo_step(
    graphdef: Any, optimizer: Any, loss: Any, chunk: int, accumulation: Accumulation, mesh: Mesh | None, options: Any
) -> Step:
    config = GRPOLossConfig(**dict(loss))
    max_tokens, temperature, on_policy = options

    def share(params: Any, micro: RolloutBatch, whole: RolloutBatch) -> tuple[jax.Array, Metrics]:
        logprobs, entropy = _score(graphdef, params, micro, chunk, temperature, mesh)
        loss, metrics = losses.policy_loss(
            config,
            logprobs,
            jax.lax.stop_gradient(logprobs) if on_policy else micro.old_logprobs_BT,
            micro.ref_logprobs_BT,
            micro.advantages_B,
            micro.loss_mask_BT,
            entropy_BT=entropy,
            # The sampler reports the plain softmax, which can only be compared with a policy of temperature 1.
            sampler_logprobs_BT=micro.sampler_logprobs_BT if temperature == 1.0 else None,
            whole=losses.totals(whole.loss_mask_BT, max_tokens),
        )
        return loss, metrics | {"tokens": jnp.sum(micro.loss_mask_BT)}

    update = _update(graphdef, share, optimizer, accumulation, mesh)
    return jax.jit(update, donate_argnums=0, compiler_options=compiler_options(mesh))


@functools.lru_cache(maxsize=32)
def _logprob_fn(graphdef: Any, chunk: int, grad_accum: int, mesh: Mesh | None, temperature: float) -> Any:
    def logprobs(params: Any, batch: Any) -> jax.Array:
        def one(micro: Any) -> jax.Array:
            found, _ = _score(graphdef, params, micro, chunk, temperature, mesh)
            return jnp.where(micro.loss_mask_BT > 0, found, 0.0)

        batch = _constrain_batch(batch, mesh)
        if grad_accum == 1:
            return one(batch)
        blocks = jax.lax.map(one, _microbatches(batch, grad_accum, mesh))
        return jnp.swapaxes(blocks, 0, 1).reshape(batch.tokens_BT.shape)

    return jax.jit(logprobs, compiler_options=compiler_options(mesh))


def _score(graphdef: Any, params: Any, micro: Any, chunk: int, temperature: float, mesh: Mesh | None) -> Any:
    """(logprobs_BT, entropy_BT) of a batch of one example a row, padded on the right, under the parameters."""
    model = nnx.merge(graphdef, params)
    hidden = model(micro.tokens_BT, micro.positions_BT, mesh=mesh)
    return losses.token_logprobs(hidden, model.head(), micro.targets_BT, chunk, temperature, mesh=mesh)


def _accumulation(train: TrainConfig) -> Accumulation:
    return train.grad_accum, train.grad_dtype


def _update(graphdef: Any, share: LossShare, optimizer_key: Any, accumulation: Accumulation, mesh: Mesh | None) -> Step:
    """The update that every loss has in common."""
    grad_accum, grad_dtype = accumulation
    optimizer = optim.make_optimizer(OptimizerConfig(**dict(optimizer_key)))
    on_host = isinstance(optimizer, optim.OnHost)

    def step(state: TrainState, batch: Any, lr: Any) -> tuple[TrainState, Metrics]:
        batch = _constrain_batch(batch, mesh)
        params = _cast_once(graphdef, state.params) if mesh_lib.platform(mesh) == "gpu" else state.params

        def gradients(micro: Any) -> tuple[Any, Metrics]:
            (loss, metrics), grads = jax.value_and_grad(share, has_aux=True)(params, micro, batch)
            # In the parameters' sharding at once: XLA would otherwise all-reduce whole gradients per microbatch.
            return _constrain(grads, mesh), metrics | {"loss": loss}

        if grad_accum == 1:
            grads, metrics = gradients(batch)
            grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        else:

            def accumulate(total: Any, micro: Any) -> tuple[Any, Metrics]:
                grads, metrics = gradients(micro)
                return jax.tree.map(lambda t, g: (t + g).astype(grad_dtype), total, grads), metrics

            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, grad_dtype), state.params)
            total, parts = jax.lax.scan(accumulate, _constrain(zeros, mesh), _microbatches(batch, grad_accum, mesh))
            grads = jax.tree.map(lambda t: t.astype(jnp.float32), total)
            metrics = {k: jnp.max(v) if k in losses.MAX_METRICS else jnp.sum(v) for k, v in parts.items()}

        metrics["grad_norm"] = optax.tree.norm(grads)
        opt_state = jax.device_put(state.opt_state, jax.memory.Space.Device) if on_host else state.opt_state
        updates, opt_state = optimizer.update(grads, opt_state, state.params)
        params = jax.tree.map(lambda p, u: p - lr * u, state.params, updates)
        state = _constrain(TrainState(params, opt_state, state.step + 1), mesh)
        if on_host:
            state = dataclasses.replace(state, opt_state=jax.device_put(state.opt_state, jax.memory.Space.Host))
        return state, metrics

    return step


def _cast_once(graphdef: Any, params: Any) -> Any:
    """The layers' matrices in the dtype of the activations, as every microbatch would cast them again on a GPU.

    Gradients are the same: those of matrices come in that dtype anyway. The embedding's are summed in float32.
    """
    dtype = nnx.merge(graphdef, params).dtype

    def cast(param: nnx.Variable[Any]) -> nnx.Variable[Any]:
        axes = param.get_metadata("logical_axes")
        return param.replace(param.get_value().astype(dtype)) if axes[0] == "layers" and len(axes) > 2 else param

    return jax.tree.map(cast, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def _microbatches(batch: Any, count: int, mesh: Mesh | None) -> Any:
    """[B, ...] -> [count, B / count, ...]; microbatch i takes rows i, i + count, ...: no row leaves its device."""

    def split(x: jax.Array) -> jax.Array:
        x = jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)
        if mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp"))))

    rows, ways = batch.tokens_BT.shape[0], 1 if mesh is None else mesh_lib.batch_ways(mesh)
    if rows % (count * ways):
        raise UsageError(
            f"config.train.grad_accum: {rows} rows do not split into {count} microbatches on {ways} device groups"
        )
    return jax.tree.map(split, batch)


def _constrain(tree: Any, mesh: Mesh | None) -> Any:
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, tree_shardings(tree, mesh))


def _constrain_batch(batch: Any, mesh: Mesh | None) -> Any:
    if mesh is None:
        return batch
    rows, ways = batch.tokens_BT.shape[0], mesh_lib.batch_ways(mesh)
    if rows % ways:
        raise UsageError(f"batch of {rows} rows does not split over data x fsdp = {ways} device groups")
    return jax.lax.with_sharding_constraint(batch, jax.tree.map(lambda _: mesh_lib.batch_sharding(mesh), batch))


def _key(config: Any) -> tuple[tuple[str, Any], ...]:
    """A config as a hashable value."""
    return tuple(dataclasses.asdict(config).items())


def _optimizer_key(config: OptimizerConfig) -> tuple[tuple[str, Any], ...]:
    """Without the fields that only the host's schedule reads."""
    fixed = dataclasses.replace(config, learning_rate=0.0, schedule="constant", final_fraction=0.0, warmup_ratio=0.0)
    return _key(fixed)
