"""Token log-probabilities and the SFT loss, chunked over the sequence: [B, T, V] never exists, forward or backward.

Both functions carry a hand-written backward pass. `nll_sum` takes its gradient while the logits of a chunk are at hand
(three vocabulary matmuls in all); `token_logprobs` cannot know its cotangents so early and computes the logits twice.

Shape letters: B batch, T time, D model, V vocab. Logits, their reductions and the head's gradient are float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from w2sr_jax.core import mesh as mesh_lib


def nll_sum(
    hidden_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    loss_mask_BT: jax.Array,
    chunk: int,
    *,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Summed negative log-likelihood of the masked targets, and their count: `sum / count` is the mean NLL.

    Args:
        hidden_BTD: after the final norm; its dtype is the dtype of the vocabulary matmul.
        head_DV: output projection, in any float dtype.
        targets_BT: int; the token to be predicted from position t.
        loss_mask_BT: 1 where the target counts, 0 elsewhere.
        chunk: tokens per row whose logits exist at once.
        mesh: gathers the head once per call and accumulates its gradient in the head's own sharding.

    Returns:
        (sum, count), float32 scalars; only the sum has a gradient, with respect to hidden and head.
    """
    mask_BT = loss_mask_BT.astype(jnp.float32)
    return _nll(hidden_BTD, head_DV, targets_BT, mask_BT, chunk, mesh), jnp.sum(mask_BT)


def token_logprobs(
    hidden_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    chunk: int,
    temperature: float = 1.0,
    *,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each target and entropy of each position's distribution, of logits / temperature.

    Args:
        hidden_BTD, head_DV, targets_BT, chunk, mesh: as in `nll_sum`.
        temperature: above 0.

    Returns:
        (logprobs_BT, entropy_BT), float32, in nats; both have gradients.
    """
    return _logprobs(hidden_BTD, head_DV, targets_BT, chunk, temperature, mesh)


class _Scores(NamedTuple):
    """What one chunk of c tokens per row gives."""

    logits_BcV: jax.Array
    logz_Bc: jax.Array
    logprobs_Bc: jax.Array
    hit_BcV: jax.Array  # bool, one-hot of the targets: compared and summed, it works on a sharded vocabulary


def _scores(hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float) -> _Scores:
    logits = jnp.einsum("bcd,dv->bcv", hidden, head, preferred_element_type=jnp.float32) / temperature
    logz = jax.nn.logsumexp(logits, axis=-1)
    hit = targets[..., None] == jnp.arange(head.shape[1], dtype=targets.dtype)
    return _Scores(logits, logz, jnp.sum(jnp.where(hit, logits, 0.0), axis=-1) - logz, hit)


def _entropy(scores: _Scores) -> jax.Array:
    """H = -sum p log p (log Z - sum p z would cancel digits)."""
    logp = scores.logits_BcV - scores.logz_Bc[..., None]
    return -jnp.sum(jnp.exp(logp) * logp, axis=-1)


def _backward(
    hidden: jax.Array, head: jax.Array, dlogits: jax.Array, dhead_sum: jax.Array, shard: Callable[[jax.Array], Any]
) -> tuple[jax.Array, jax.Array]:
    """(gradient of hidden, running float32 gradient of the head) from the gradient of one chunk's logits."""
    dlogits = dlogits.astype(hidden.dtype)
    dhidden = jnp.einsum("bcv,dv->bcd", dlogits, head, preferred_element_type=jnp.float32).astype(hidden.dtype)
    dhead = jnp.einsum("bcd,bcv->dv", hidden, dlogits, preferred_element_type=jnp.float32)
    return dhidden, shard(dhead_sum + shard(dhead))


def _chunks(body: Callable[..., Any], carry: Any, arrays: tuple[jax.Array, ...], chunk: int) -> tuple[Any, Any]:
    """`lax.scan` of `body` over chunks of axis 1, padded with zeros; a plain call where one chunk holds everything."""
    batch, length = arrays[0].shape[:2]
    if length <= chunk:
        return body(carry, arrays)
    count = -(-length // chunk)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(batch, count, chunk, *x.shape[2:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(batch, count * chunk, *x.shape[3:])[:, :length]

    carry, outputs = jax.lax.scan(body, carry, jax.tree.map(split, arrays))
    return carry, jax.tree.map(join, outputs)


def _gathered(head: jax.Array, dtype: Any, mesh: Mesh | None) -> jax.Array:
    """The head in the compute dtype, whole along D: gathered once, in the small dtype, and not in every chunk."""
    head = head.astype(dtype)
    if mesh is None:
        return head
    return jax.lax.with_sharding_constraint(head, mesh_lib.sharding((None, "vocab"), head.shape, mesh, "head"))


def _head_shard(shape: tuple[int, ...], mesh: Mesh | None) -> Callable[[jax.Array], jax.Array]:
    """Keeps the head's gradient in the head's own sharding: XLA would otherwise all-reduce [D, V] for every chunk."""
    if mesh is None:
        return lambda x: x
    sharding = mesh_lib.sharding(("embed", "vocab"), shape, mesh, "head")
    return lambda x: jax.lax.with_sharding_constraint(x, sharding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _nll(hidden, head, targets, mask, chunk, mesh):
    weights = _gathered(head, hidden.dtype, mesh)

    def body(total, block):
        hidden_c, targets_c, mask_c = block
        return total - jnp.sum(_scores(hidden_c, weights, targets_c, 1.0).logprobs_Bc * mask_c), ()

    return _chunks(body, jnp.float32(0), (hidden, targets, mask), chunk)[0]


def _nll_forward(hidden, head, targets, mask, chunk, mesh):
    weights, shard = _gathered(head, hidden.dtype, mesh), _head_shard(head.shape, mesh)

    def body(carry, block):
        total, dhead = carry
        hidden_c, targets_c, mask_c = block
        scores = _scores(hidden_c, weights, targets_c, 1.0)
        probs = jnp.exp(scores.logits_BcV - scores.logz_Bc[..., None])
        dlogits = (probs - scores.hit_BcV) * mask_c[..., None]
        dhidden, dhead = _backward(hidden_c, weights, dlogits, dhead, shard)
        return (total - jnp.sum(scores.logprobs_Bc * mask_c), dhead), dhidden

    start = (jnp.float32(0), shard(jnp.zeros(head.shape, jnp.float32)))
    (total, dhead), dhidden = _chunks(body, start, (hidden, targets, mask), chunk)
    return total, (dhidden, dhead.astype(head.dtype))


def _nll_backward(chunk, mesh, residuals, cotangent):
    dhidden, dhead = residuals
    return (dhidden * cotangent).astype(dhidden.dtype), (dhead * cotangent).astype(dhead.dtype), None, None


_nll.defvjp(_nll_forward, _nll_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _logprobs(hidden, head, targets, chunk, temperature, mesh):
    weights = _gathered(head, hidden.dtype, mesh)

    def body(carry, block):
        scores = _scores(block[0], weights, block[1], temperature)
        return carry, (scores.logprobs_Bc, _entropy(scores))

    return _chunks(body, (), (hidden, targets), chunk)[1]


def _logprobs_forward(hidden, head, targets, chunk, temperature, mesh):
    return _logprobs(hidden, head, targets, chunk, temperature, mesh), (hidden, head, targets)


def _logprobs_backward(chunk, temperature, mesh, residuals, cotangents):
    """d logprob / dz = onehot - p and dH / dz = -p (log p + H), with z the logits over the temperature."""
    hidden, head, targets = residuals
    weights, shard = _gathered(head, hidden.dtype, mesh), _head_shard(head.shape, mesh)

    def body(dhead, block):
        hidden_c, targets_c, dlogprobs_c, dentropy_c = block
        scores = _scores(hidden_c, weights, targets_c, temperature)
        logp = scores.logits_BcV - scores.logz_Bc[..., None]
        dz = dlogprobs_c[..., None] * (scores.hit_BcV - jnp.exp(logp))
        dz -= dentropy_c[..., None] * jnp.exp(logp) * (logp + _entropy(scores)[..., None])
        dhidden, dhead = _backward(hidden_c, weights, dz / temperature, dhead, shard)
        return dhead, dhidden

    start = shard(jnp.zeros(head.shape, jnp.float32))
    dhead, dhidden = _chunks(body, start, (hidden, targets, *cotangents), chunk)
    return dhidden, dhead.astype(head.dtype), None


_logprobs.defvjp(_logprobs_forward, _logprobs_backward)
