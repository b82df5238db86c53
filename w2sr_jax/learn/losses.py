"""The losses: `nll_sum` and `token_logprobs` (chunked.py), and the policy-gradient loss of GRPO and its variants.

Shape letters: B responses (one a row), T time.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import GRPOLossConfig
from w2sr_jax.learn.chunked import nll_sum, token_logprobs

__all__ = ["Totals", "nll_sum", "policy_loss", "token_logprobs", "totals"]

MAX_LOG_RATIO = 20.0  # exp(20) = 5e8: far outside every clip, and still finite when squared in float32
# These metrics of microbatches join by maximum; all others are sums of parts.
MAX_METRICS = ("mismatch_p99", "mismatch_max")


class Totals(NamedTuple):
    """Sizes of the whole global minibatch: each microbatch divides by them, so that parts add up to the whole."""

    tokens: jax.Array
    sequences: jax.Array
    max_tokens: int


def totals(mask_BT: jax.Array, max_tokens: int = 0) -> Totals:
    """Totals of a minibatch; rows without a response token are no sequence. max_tokens is for aggregate="constant"."""
    mask = mask_BT.astype(jnp.float32)
    sequences = jnp.sum(jnp.max(mask, axis=1))
    return Totals(jnp.maximum(jnp.sum(mask), 1.0), jnp.maximum(sequences, 1.0), max_tokens)


def policy_loss(
    config: GRPOLossConfig,
    logprobs_BT: jax.Array,
    old_logprobs_BT: jax.Array,
    ref_logprobs_BT: jax.Array,
    advantages_B: jax.Array,
    mask_BT: jax.Array,
    *,
    entropy_BT: jax.Array | None = None,
    sampler_logprobs_BT: jax.Array | None = None,
    whole: Totals | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Clipped policy-gradient loss with k3 KL, entropy bonus and truncated importance sampling.

    L = agg( -w min(s A, clip(s, 1 - clip_low, 1 + clip_high) A) + kl k3 - entropy H )
      s   token: exp(logp - old) (DeepSeekMath, arXiv 2402.03300); sequence: exp(mean_t(logp - old)), on every token of
          the row (GSPO, arXiv 2507.18071)
      k3  exp(ref - logp) - (ref - logp) - 1
      w   min(exp(old - sampler), tis_cap), without gradient; 1 when tis_cap is 0
      agg token_mean: sum / tokens; sequence_mean: mean over rows of the row's mean; constant: sum / (rows max_tokens)

    Args:
        config: which of these.
        logprobs_BT: of the policy being trained; carries the gradient.
        old_logprobs_BT: of the policy at the rollout, as the trainer computes them.
        ref_logprobs_BT: of the frozen reference; not used when config.kl is 0.
        advantages_B: one per response.
        mask_BT: 1 on response tokens; values elsewhere do not matter, be they infinite.
        entropy_BT: of the policy's distributions; needed by config.entropy, otherwise a metric.
        sampler_logprobs_BT: as the engine reported them; needed by config.tis_cap, otherwise a metric.
        whole: totals of the minibatch when this is one microbatch of it; default: of mask_BT itself.

    Returns:
        (loss, metrics): float32 scalars. Both are this microbatch's share: shares add up (MAX_METRICS: by maximum).
    """
    mask = mask_BT.astype(jnp.float32)
    whole = totals(mask) if whole is None else whole
    lengths_B = jnp.maximum(jnp.sum(mask, axis=1), 1.0)

    def mean_over_tokens(x_BT: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(mask > 0, x_BT, 0.0) * mask) / whole.tokens

    def aggregate(x_BT: jax.Array) -> jax.Array:
        if config.aggregate == "token_mean":
            return jnp.sum(x_BT * mask) / whole.tokens
        if config.aggregate == "sequence_mean":
            return jnp.sum(jnp.sum(x_BT * mask, axis=1) / lengths_B) / whole.sequences
        if whole.max_tokens < 1:
            raise UsageError('config.loss.aggregate: "constant" needs max_tokens, the longest response')
        return jnp.sum(x_BT * mask) / (whole.sequences * whole.max_tokens)

    log_ratio = _difference(logprobs_BT, old_logprobs_BT, mask)
    if config.ratio == "sequence":
        log_ratio = jnp.broadcast_to((jnp.sum(log_ratio, axis=1) / lengths_B)[:, None], log_ratio.shape)
    ratio = jnp.exp(log_ratio)
    advantages = advantages_B.astype(jnp.float32)[:, None]
    free = ratio * advantages
    clipped = jnp.clip(ratio, 1.0 - config.clip_low, 1.0 + config.clip_high) * advantages
    per_token = -jnp.minimum(free, clipped)
    metrics = {"ratio_mean": mean_over_tokens(ratio), "clip_fraction": mean_over_tokens(clipped < free)}

    if sampler_logprobs_BT is not None:
        mismatch = _difference(old_logprobs_BT, sampler_logprobs_BT, mask)
        size = jnp.abs(mismatch)
        metrics["mismatch_mean"] = mean_over_tokens(size)
        metrics["mismatch_p99"] = _percentile(size, mask, 0.99)
        metrics["mismatch_max"] = jnp.max(size)
        if config.tis_cap > 0:
            weight = jax.lax.stop_gradient(jnp.minimum(jnp.exp(mismatch), config.tis_cap))
            per_token = per_token * weight
            metrics["tis_weight_mean"] = mean_over_tokens(weight)
    elif config.tis_cap > 0:
        raise UsageError("config.loss.tis_cap: truncated importance sampling needs the sampler's logprobs")
    metrics["policy_loss"] = aggregate(per_token)
    loss = metrics["policy_loss"]

    if config.kl > 0:
        gap = _difference(ref_logprobs_BT, logprobs_BT, mask)
        k3 = jnp.exp(gap) - gap - 1.0
        metrics["kl"] = mean_over_tokens(k3)
        loss = loss + config.kl * aggregate(k3)
    if entropy_BT is not None:
        metrics["entropy"] = mean_over_tokens(entropy_BT)
        if config.entropy > 0:
            loss = loss - config.entropy * aggregate(jnp.where(mask > 0, entropy_BT, 0.0))
    elif config.entropy > 0:
        raise UsageError("config.loss.entropy: the bonus needs the policy's entropies")
    return loss, jax.tree.map(jax.lax.stop_gradient, metrics)


def _percentile(x_BT: jax.Array, mask_BT: jax.Array, share: float) -> jax.Array:
    """The smallest value on the mask that at least this share of the values there do not exceed."""
    ordered = jnp.sort(jnp.where(mask_BT > 0, x_BT, jnp.inf), axis=None)
    count = jnp.sum(mask_BT > 0)
    return jnp.where(count > 0, ordered[jnp.maximum(jnp.ceil(share * count).astype(jnp.int32) - 1, 0)], 0.0)


def _difference(a_BT: jax.Array, b_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """a - b on the mask, 0 elsewhere (before any exp: an infinity off the mask would make the gradient NaN)."""
    inside = mask_BT > 0
    difference = jnp.where(inside, a_BT, 0.0) - jnp.where(inside, b_BT, 0.0)
    return jnp.clip(difference.astype(jnp.float32), -MAX_LOG_RATIO, MAX_LOG_RATIO)
