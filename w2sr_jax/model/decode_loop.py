"""The jitted half of sampling: rows of a batch that are filled, extended together, and filled again.

Prompts end at one slot of the cache, so that all rows write the same slot at the same step: a row that is filled later
is put right before the slot that the others have reached. Prefill reads each prompt but for its last token; the loop
reads that one and then every new one, so the choice of a token is compiled once.

Shape letters: B rows, U prompts (B = U x copies), R rows that are filled again, P prompt columns, S cache slots,
N new tokens, V vocabulary, K stop ids.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.mesh import constrain
from w2sr_jax.model import unrolled
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.kv_cache import Cache
from w2sr_jax.model.token_choice import choose_tokens, row_keys
from w2sr_jax.model.unrolled import Unrolled


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["temperature", "top_p", "top_k", "stop_ids_K"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Request:
    """What all rows ask for; all of it runtime."""

    temperature: Any  # float32
    top_p: Any  # float32
    top_k: Any  # int32
    stop_ids_K: Any  # int32, filled up with -1


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["prompts_UP", "padding_U", "newest_U", "seeds_B2", "samples_B", "limits_B", "used_B"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Fill:
    """Prompts to start with; rows u * copies to u * copies + copies - 1 are those of prompt u."""

    prompts_UP: Any  # int32, all but the last token of each, padded on the left
    padding_U: Any  # int32, columns of padding
    newest_U: Any  # int32, the last token of each
    seeds_B2: Any  # uint32, the halves of each row's 64-bit seed
    samples_B: Any  # uint32, which stream of that seed
    limits_B: Any  # int32, new tokens at most
    used_B: Any  # bool; the others are dummies


# Fields of State.
ROWS = ("first_B", "newest_B", "keys_B2", "tokens_BN", "logprobs_BN", "lengths_B", "limits_B", "done_B")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["cache", "slot", *ROWS],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class State:
    """The loop's carry."""

    cache: Cache
    slot: jax.Array  # int32, where `newest_B` goes next
    first_B: jax.Array  # int32, the slot of each row's position 0
    newest_B: jax.Array  # int32, the token to read next
    keys_B2: jax.Array  # uint32, key data of each row before the token's index is folded in
    tokens_BN: jax.Array  # int32, new tokens
    logprobs_BN: jax.Array  # float32, of the same tokens under the plain softmax
    lengths_B: jax.Array  # int32, new tokens so far, the stop token included
    limits_B: jax.Array  # int32, new tokens at most
    done_B: jax.Array  # bool; also rows without a prompt

    def on(self, mesh: Mesh | None) -> Self:
        """The same kept where core/mesh.py says, inside a jitted function: every step finds it where the last did."""
        rows = {name: getattr(self, name) for name in ROWS}
        placed = {name: constrain(x, ("batch", None)[: x.ndim], mesh) for name, x in rows.items()}
        return dataclasses.replace(self, cache=self.cache.on(mesh), slot=constrain(self.slot, (), mesh), **placed)


@functools.partial(
    jax.jit, static_argnames=("config", "rows", "length", "tokens", "dtype", "by_layer", "tiled", "mesh")
)
def empty(
    config: ModelConfig,
    slot: Any,
    *,
    rows: int,
    length: int,
    tokens: int,
    dtype: Any,
    by_layer: bool = False,
    tiled: bool = False,
    mesh: Mesh | None = None,
) -> State:
    """A batch without prompts, in a cache of `length` slots, with room for `tokens` new tokens a row."""
    state = State(
        cache=Cache.empty(config, rows, length, dtype, by_layer=by_layer, tiled=tiled),
        slot=jnp.int32(slot),
        first_B=jnp.full((rows,), slot, jnp.int32),
        newest_B=jnp.zeros((rows,), jnp.int32),
        keys_B2=jnp.zeros((rows, 2), jnp.uint32),
        tokens_BN=jnp.zeros((rows, tokens), jnp.int32),
        logprobs_BN=jnp.zeros((rows, tokens), jnp.float32),
        lengths_B=jnp.zeros((rows,), jnp.int32),
        limits_B=jnp.zeros((rows,), jnp.int32),
        done_B=jnp.ones((rows,), jnp.bool_),
    )
    return state.on(mesh)


@functools.partial(jax.jit, static_argnames=("graphdef", "config", "mesh"))
def prefill(
    graphdef: nnx.GraphDef[Decoder], config: ModelConfig, weights: Any, fill: Fill, *, mesh: Mesh | None
) -> Cache:
    """Keys and values of prompts; weights as of `decode`."""
    if isinstance(weights, Unrolled):
        return unrolled.prefill(config, weights, *_read(fill))
    return nnx.merge(graphdef, weights).prefill(*_read(fill), mesh=mesh)


@functools.partial(jax.jit, static_argnames=("copies", "mesh"), donate_argnames=("state",))
def refill(state: State, fill: Fill, new: Cache, rows_R: jax.Array, *, copies: int, mesh: Mesh | None = None) -> State:
    """Puts new prompts into rows that are done.

    Args:
        fill: its R = U x copies rows; those that are used come first.
        new: of `prefill`.
        rows_R: which rows of the batch they become. No prompt may be longer than the slot that has been reached.
        mesh: where all devices get all prompts' keys and values, since a row may be filled on any of them.
    """
    new = new.on(mesh, rows=None)
    sources_R = jnp.arange(rows_R.shape[0]) // copies
    rows_R = jnp.where(fill.used_B, rows_R, state.done_B.shape[0])  # beyond the batch: dropped

    def put(old: jax.Array, values: Any) -> jax.Array:
        return old.at[rows_R].set(values, mode="drop")

    filled = dataclasses.replace(
        state,
        cache=state.cache.insert(new, sources_R, rows_R, jnp.sum(fill.used_B), state.slot),
        first_B=put(state.first_B, state.slot - fill.prompts_UP.shape[1] + fill.padding_U[sources_R]),
        newest_B=put(state.newest_B, fill.newest_U[sources_R]),
        keys_B2=put(state.keys_B2, row_keys(fill.seeds_B2, fill.samples_B)),
        lengths_B=put(state.lengths_B, 0),
        limits_B=put(state.limits_B, fill.limits_B),
        done_B=put(state.done_B, False),
    )
    return filled.on(mesh)


def _read(fill: Fill) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(tokens, positions, segment ids), each [U, P]."""
    positions_UP = jnp.arange(fill.prompts_UP.shape[1], dtype=jnp.int32) - fill.padding_U[:, None]
    return fill.prompts_UP, jnp.maximum(positions_UP, 0), (positions_UP >= 0).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("graphdef", "config", "mesh"), donate_argnames=("state",))
def decode(
    graphdef: nnx.GraphDef[Decoder],
    config: ModelConfig,
    weights: Any,
    state: State,
    request: Request,
    enough: Any,
    *,
    mesh: Mesh | None,
) -> State:
    """Extends all rows until `enough` of them are done or the cache is full.

    Args:
        weights: the Decoder's parameters, or what `unrolled.unroll` made of them.
        enough: int32.
    """
    rows_B = jnp.arange(state.done_B.shape[0])

    def more(state: State) -> jax.Array:
        return (state.slot < state.cache.length) & (jnp.sum(state.done_B) < enough)

    def next_logits(state: State) -> tuple[jax.Array, Cache]:
        if isinstance(weights, Unrolled):
            return unrolled.decode(config, weights, state.newest_B, state.cache, state.first_B, state.slot)
        model = nnx.merge(graphdef, weights)
        return model.decode(state.newest_B, state.cache, state.first_B, state.slot, mesh=mesh)

    def step(state: State) -> State:
        logits_BV, cache = next_logits(state)
        chosen_B = choose_tokens(
            logits_BV, state.keys_B2, state.lengths_B, request.temperature, request.top_p, request.top_k
        )
        logprobs_B = jnp.take_along_axis(logits_BV, chosen_B[:, None], axis=-1)[:, 0]
        logprobs_B -= jax.nn.logsumexp(logits_BV, axis=-1)
        column_B = jnp.where(state.done_B, state.tokens_BN.shape[1], state.lengths_B)  # beyond the end: dropped
        lengths_B = state.lengths_B + ~state.done_B
        stops_B = jnp.any(chosen_B[:, None] == request.stop_ids_K, axis=-1)
        return dataclasses.replace(
            state,
            cache=cache,
            slot=state.slot + 1,
            newest_B=chosen_B,
            tokens_BN=state.tokens_BN.at[rows_B, column_B].set(chosen_B, mode="drop"),
            logprobs_BN=state.logprobs_BN.at[rows_B, column_B].set(logprobs_B, mode="drop"),
            lengths_B=lengths_B,
            done_B=state.done_B | stops_B | (lengths_B >= state.limits_B),
        )

    extended = jax.lax.while_loop(more, step, state)
    return extended.on(mesh)


@functools.partial(jax.jit, static_argnames=("length",))
def grow(state: State, *, length: int) -> State:
    """A longer cache."""
    return dataclasses.replace(state, cache=state.cache.grow(length))


@jax.jit
def narrow(state: State, rows_R: jax.Array) -> State:
    """A batch of these rows."""
    rows = {name: getattr(state, name)[rows_R] for name in ROWS}
    return dataclasses.replace(state, cache=state.cache.take(rows_R), **rows)


@functools.partial(jax.jit, donate_argnames=("state",))
def shift(state: State, by: jax.Array) -> State:
    """Forgets the first slots, which no row that is still extended may need."""
    return dataclasses.replace(
        state, cache=state.cache.shift(by), slot=state.slot - by, first_B=jnp.maximum(state.first_B - by, 0)
    )
