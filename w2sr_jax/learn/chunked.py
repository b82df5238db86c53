"""Token log-probabilities and the SFT loss, chunked over the sequence: [B, T, V] never exists, forward or backward.

Both functions carry a hand-written backward pass. `nll_sum` takes its gradient while the logits of a chunk are at hand
(three vocabulary matmuls in all); `token_logprobs` cannot know its cotangents so early and computes the logits twice,
unless one chunk holds the whole row, whose logits then wait for the backward pass.

On a mesh every device works on its own rows and its own part of the vocabulary (`_on_mesh`). It gathers the head along
D once per call, sums the head's gradient over its chunks by itself, and only then the devices add theirs up, once, into
the head's own sharding: left to XLA, all of [D, V] is all-reduced for every chunk. Between chunks the devices of the
tensor axis exchange no more than what one token needs: its largest logit, its sums, its hidden gradient.

Shape letters: B batch, T time, D model, V vocab. Logits, their reductions and the head's gradient are float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh, PartitionSpec

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
        mesh: where rows and head are split; B must split over its data axes.

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
    """What one chunk of c tokens per row gives; V is this device's part of the vocabulary."""

    logits_BcV: jax.Array
    logz_Bc: jax.Array
    logprobs_Bc: jax.Array


class _Group:
    """The devices that work together; without a mesh there is one, and everything is its own."""

    def __init__(self, mesh: Mesh | None):
        self.split_vocab = mesh is not None and mesh.shape["tensor"] > 1
        self.mesh = mesh

    def gather(self, head_DV: jax.Array, dtype: Any) -> jax.Array:
        """The head in the compute dtype, whole along D: once, in the small dtype, and not in every chunk."""
        head_DV = head_DV.astype(dtype)
        return head_DV if self.mesh is None else jax.lax.all_gather(head_DV, "fsdp", axis=0, tiled=True)

    def scatter(self, dhead_DV: jax.Array) -> jax.Array:
        """The sum of all devices' gradients of the head, in the head's own sharding.

        Split along an axis of its own: along D itself XLA would all-reduce the whole and then cut, wherever the parts
        are no multiples of 128.
        """
        if self.mesh is None:
            return dhead_DV
        ways, vocab = self.mesh.shape["fsdp"], dhead_DV.shape[1]
        if side := _square(self.mesh):
            columns = [[side * i + j for i in range(side)] for j in range(side)]
            parts = dhead_DV.reshape(side, side, -1, vocab)
            parts = jax.lax.psum_scatter(parts, "fsdp", scatter_dimension=0, axis_index_groups=columns)
            rows = [[side * i + j for j in range(side)] for i in range(side)]
            share = jax.lax.psum_scatter(parts, "fsdp", scatter_dimension=0, axis_index_groups=rows)
        else:
            share = jax.lax.psum_scatter(dhead_DV.reshape(ways, -1, vocab), "fsdp", scatter_dimension=0)
        return jax.lax.psum(share, "data")

    def over_rows(self, x: jax.Array) -> jax.Array:
        """The sum over devices that hold different rows."""
        return x if self.mesh is None else jax.lax.psum(x, ("data", "fsdp"))

    def over_vocab(self, x: jax.Array) -> jax.Array:
        """The sum over devices that hold different parts of the vocabulary."""
        return jax.lax.psum(x, "tensor") if self.split_vocab else x

    def logz(self, logits_BcV: jax.Array) -> jax.Array:
        """log sum exp over the whole vocabulary."""
        if not self.split_vocab:
            in_one_pass = mesh_lib.platform(self.mesh) == "gpu"
            return _logsumexp(logits_BcV) if in_one_pass else jax.nn.logsumexp(logits_BcV, axis=-1)
        largest_Bc = jax.lax.pmax(jnp.max(logits_BcV, axis=-1), "tensor")
        return largest_Bc + jnp.log(self.over_vocab(jnp.sum(jnp.exp(logits_BcV - largest_Bc[..., None]), axis=-1)))

    def chosen(self, logits_BcV: jax.Array, targets_Bc: jax.Array) -> jax.Array:
        """The targets' logits."""
        if not self.split_vocab and mesh_lib.platform(self.mesh) != "tpu":
            # The products of a one-hot would be written out on a CPU, and read all logits once more on a GPU.
            return jnp.take_along_axis(logits_BcV, targets_Bc[..., None], axis=-1, mode="clip")[..., 0]
        hits_BcV = self.hits(targets_Bc, logits_BcV.shape[-1])
        return self.over_vocab(jnp.sum(jnp.where(hits_BcV, logits_BcV, 0.0), axis=-1))

    def hits(self, targets_Bc: jax.Array, vocab: int) -> jax.Array:
        """One-hot of the targets, bool [B, c, V] of this device's part of the vocabulary."""
        start = jax.lax.axis_index("tensor") * vocab if self.split_vocab else 0
        return targets_Bc[..., None] == start + jnp.arange(vocab, dtype=targets_Bc.dtype)


def _logsumexp(x_BcV: jax.Array) -> jax.Array:
    """log sum exp over the last axis, which reads `x` once: maximum and sum together (Milakov and Gimelshein, 2018)."""

    def join(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (top_a, sum_a), (top_b, sum_b) = a, b
        less = jnp.exp(-jnp.abs(top_a - top_b))  # of the side with the smaller maximum
        larger = top_a >= top_b
        return jnp.maximum(top_a, top_b), jnp.where(larger, sum_a + sum_b * less, sum_a * less + sum_b)

    start = jnp.float32(jnp.finfo(jnp.float32).min), jnp.float32(0)
    top, total = jax.lax.reduce((x_BcV, jnp.ones_like(x_BcV)), start, join, (x_BcV.ndim - 1,))
    return top + jnp.log(total)


def _square(mesh: Mesh) -> int:
    """The side of a square of TPU chips on which XLA knows no reduce-scatter, though it knows one along each side.

    Seen on v5e:4x4 and v6e:4x4, not on 2x2, 2x4 or v5p:2x2x1 (BUILD_NOTES.md); 0 elsewhere.
    """
    return 4 if mesh.shape["fsdp"] == 16 and mesh.devices.flat[0].platform == "tpu" else 0


def _logits(hidden: jax.Array, head: jax.Array, temperature: float) -> jax.Array:
    return jnp.einsum("bcd,dv->bcv", hidden, head, preferred_element_type=jnp.float32) / temperature


def _scores(hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float, group: _Group) -> _Scores:
    logits = _logits(hidden, head, temperature)
    logz = group.logz(logits)
    return _Scores(logits, logz, group.chosen(logits, targets) - logz)


def _entropy(scores: _Scores, group: _Group) -> jax.Array:
    """H = -sum p log p (log Z - sum p z would cancel digits)."""
    logp = scores.logits_BcV - scores.logz_Bc[..., None]
    return -group.over_vocab(jnp.sum(jnp.exp(logp) * logp, axis=-1))


def _backward(
    hidden: jax.Array, head: jax.Array, dlogits: jax.Array, dhead_sum: jax.Array, group: _Group
) -> tuple[jax.Array, jax.Array]:
    """(gradient of hidden, this device's running float32 gradient of the head) from that of one chunk's logits."""
    dlogits = dlogits.astype(hidden.dtype)
    dhidden = group.over_vocab(jnp.einsum("bcv,dv->bcd", dlogits, head, preferred_element_type=jnp.float32))
    dhead = jnp.einsum("bcd,bcv->dv", hidden, dlogits, preferred_element_type=jnp.float32)
    if mesh_lib.on_one_cpu(
        group.mesh
    ):  # of tied weights XLA would compute it transposed, which takes half as long again
        dhead = jax.lax.optimization_barrier(dhead)
    return dhidden.astype(hidden.dtype), dhead_sum + dhead


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


def _on_mesh(function: Callable[..., Any], mesh: Mesh | None, head: jax.Array, ins: str, outs: str) -> Any:
    """`function` on each device's own part of its arguments.

    Args:
        head: in its full shape.
        ins, outs: what each argument and each result is: r is split by rows, v by rows and vocabulary, h is the head or
            its gradient, t is the same everywhere.
    """
    if mesh is None:
        return function
    specs = {
        "r": PartitionSpec(("data", "fsdp")),
        "v": PartitionSpec(("data", "fsdp"), None, "tensor"),
        "h": mesh_lib.spec(("embed", "vocab"), head.shape, mesh, "head"),
        "t": PartitionSpec(),
    }
    in_specs, out_specs = (tuple(specs[kind] for kind in kinds) for kinds in (ins, outs))
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _nll(hidden, head, targets, mask, chunk, mesh):
    group = _Group(mesh)

    def local(hidden, head, targets, mask):
        weights = group.gather(head, hidden.dtype)

        def body(total, block):
            hidden_c, targets_c, mask_c = block
            return total - jnp.sum(_scores(hidden_c, weights, targets_c, 1.0, group).logprobs_Bc * mask_c), ()

        return (group.over_rows(_chunks(body, jnp.float32(0), (hidden, targets, mask), chunk)[0]),)

    return _on_mesh(local, mesh, head, "rhrr", "t")(hidden, head, targets, mask)[0]


def _nll_forward(hidden, head, targets, mask, chunk, mesh):
    group = _Group(mesh)

    def local(hidden, head, targets, mask):
        weights = group.gather(head, hidden.dtype)

        def body(carry, block):
            total, dhead = carry
            hidden_c, targets_c, mask_c = block
            scores = _scores(hidden_c, weights, targets_c, 1.0, group)
            probs = jnp.exp(scores.logits_BcV - scores.logz_Bc[..., None])
            dlogits = (probs - group.hits(targets_c, weights.shape[1])) * mask_c[..., None]
            dhidden, dhead = _backward(hidden_c, weights, dlogits, dhead, group)
            return (total - jnp.sum(scores.logprobs_Bc * mask_c), dhead), dhidden

        start = (jnp.float32(0), jnp.zeros(weights.shape, jnp.float32))
        (total, dhead), dhidden = _chunks(body, start, (hidden, targets, mask), chunk)
        return group.over_rows(total), dhidden, group.scatter(dhead)

    total, dhidden, dhead = _on_mesh(local, mesh, head, "rhrr", "trh")(hidden, head, targets, mask)
    return total, (dhidden, dhead.astype(head.dtype))


def _nll_backward(chunk, mesh, residuals, cotangent):
    dhidden, dhead = residuals
    return (dhidden * cotangent).astype(dhidden.dtype), (dhead * cotangent).astype(dhead.dtype), None, None


_nll.defvjp(_nll_forward, _nll_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _logprobs(hidden, head, targets, chunk, temperature, mesh):
    return _pass_logprobs(hidden, head, targets, chunk, temperature, mesh)[:2]


def _pass_logprobs(hidden, head, targets, chunk, temperature, mesh):
    """(logprobs_BT, entropy_BT, logz_BT, and logits_BTV where there is one chunk)."""
    group, keep = _Group(mesh), targets.shape[1] <= chunk

    def local(hidden, head, targets):
        weights = group.gather(head, hidden.dtype)

        def body(carry, block):
            scores = _scores(block[0], weights, block[1], temperature, group)
            found = (scores.logprobs_Bc, _entropy(scores, group), scores.logz_Bc)
            return carry, (*found, scores.logits_BcV) if keep else found

        return _chunks(body, (), (hidden, targets), chunk)[1]

    return _on_mesh(local, mesh, head, "rhr", "rrrv" if keep else "rrr")(hidden, head, targets)


def _logprobs_forward(hidden, head, targets, chunk, temperature, mesh):
    hidden, head, targets = hidden.value, head.value, targets.value
    logprobs, entropy, *rest = _pass_logprobs(hidden, head, targets, chunk, temperature, mesh)
    return (logprobs, entropy), (hidden, head, targets, entropy, *rest)


def _logprobs_backward(chunk, temperature, mesh, residuals, cotangents):
    """d logprob / dz = onehot - p and dH / dz = -p (log p + H), with z the logits over the temperature."""
    hidden, head, targets, entropy, logz, *kept = residuals
    dlogprobs, dentropy = cotangents
    group = _Group(mesh)
    # A symbolic zero is what comes of entropies that are a metric only.
    entropies = () if isinstance(dentropy, SymbolicZero) else (entropy, dentropy)
    if isinstance(dlogprobs, SymbolicZero):
        dlogprobs = jnp.zeros_like(logz)

    def local(head, *rows):
        weights = group.gather(head, hidden.dtype)

        def body(dhead, block):
            hidden_c, targets_c, logz_c, dlogprobs_c, *rest = block
            logits = rest.pop() if kept else _logits(hidden_c, weights, temperature)
            logp = logits - logz_c[..., None]
            weight = dlogprobs_c[..., None]
            hits = jnp.where(group.hits(targets_c, weights.shape[1]), weight, 0.0)
            if entropies:
                entropy_c, dentropy_c = rest
                weight = weight + dentropy_c[..., None] * (logp + entropy_c[..., None])
            dz = hits - jnp.exp(logp) * weight  # with one exponential, or XLA would write it out
            dhidden, dhead = _backward(hidden_c, weights, dz / temperature, dhead, group)
            return dhead, dhidden

        dhead, dhidden = _chunks(body, jnp.zeros(weights.shape, jnp.float32), rows, chunk)
        return dhidden, group.scatter(dhead)

    rows = (hidden, targets, logz, dlogprobs, *entropies, *kept)
    kinds = "h" + "r" * (len(rows) - len(kept)) + "v" * len(kept)
    dhidden, dhead = _on_mesh(local, mesh, head, kinds, "rh")(head, *rows)
    return dhidden, dhead.astype(head.dtype), None


_logprobs.defvjp(_logprobs_forward, _logprobs_backward, symbolic_zeros=True)
