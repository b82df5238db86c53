"""Autoregressive sampling: one prefill and one decode loop, both jitted, for a batch of unequal prompts.

Prompts are padded on the left, so all rows write the same cache slot at the same step. Prefill reads each prompt but
for its last token; the loop reads that one and then every new one, so the choice of a token is compiled once.
Widths come in buckets, everything else (weights, stop ids, temperature, number of tokens) is a runtime argument: the
number of compilations is that of the (batch, prompt, cache) buckets met, over all Samplers of one architecture.

Shape letters: B rows, U prompts (B = U x copies), P prompt columns, S cache slots, V vocabulary, K stop ids.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.mesh import batch_sharding, batch_ways, replicated
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.kv_cache import Cache
from w2sr_jax.model.token_choice import choose_tokens, row_keys

# Slots of the first cache. A longer completion doubles it as it goes, so short ones never attend over the longest.
FIRST_CACHE = 512


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["row_keys_B2", "padding_B", "start", "max_tokens", "temperature", "top_p", "top_k", "stop_ids_K"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Request:
    """What a batch asks for; all of it runtime."""

    row_keys_B2: Any  # uint32, random key data of each row before the token index is folded in
    padding_B: Any  # int32, slots of left padding
    start: Any  # int32, the slot of the last prompt token
    max_tokens: Any  # int32
    temperature: Any  # float32
    top_p: Any  # float32
    top_k: Any  # int32
    stop_ids_K: Any  # int32, filled up with -1


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["cache", "newest_B", "tokens_BS", "logprobs_BS", "lengths_B", "finished_B", "slot"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class State:
    """The loop's carry."""

    cache: Cache
    newest_B: jax.Array  # int32, the token to read next, into `slot`
    tokens_BS: jax.Array  # int32, new tokens, each in the column of its predecessor's slot
    logprobs_BS: jax.Array  # float32, of the same tokens under the plain softmax
    lengths_B: jax.Array  # int32, new tokens so far, the stop token included
    finished_B: jax.Array  # bool
    slot: jax.Array  # int32


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One sampled sequence on the host."""

    token_ids: list[int]
    logprobs: list[float]
    stopped: bool


@functools.partial(jax.jit, static_argnames=("graphdef", "config", "length", "copies"))
def _prefill(
    graphdef: nnx.GraphDef[Decoder],
    config: ModelConfig,
    params: Any,
    prompts_UP: jax.Array,
    newest_B: jax.Array,
    finished_B: jax.Array,
    samples_B: jax.Array,
    request: Request,
    *,
    length: int,
    copies: int,
) -> tuple[State, Request]:
    """Reads all but the last token of each prompt; makes a cache of `length` slots with `copies` rows per prompt.

    `request` comes with the rows' seeds in place of their keys and goes with the keys.
    """
    model = nnx.merge(graphdef, params)
    (num_prompts, width), rows = prompts_UP.shape, finished_B.shape[0]
    positions_UP = jnp.arange(width, dtype=jnp.int32) - request.padding_B[::copies, None]
    segment_ids_UP = (positions_UP >= 0).astype(jnp.int32)
    cache = Cache.zeros(config, num_prompts, width, model.dtype)
    _, cache = model(prompts_UP, jnp.maximum(positions_UP, 0), segment_ids_UP, cache=cache, cache_index=0)
    state = State(
        cache=cache.repeat(copies).grow(length),
        newest_B=newest_B,
        tokens_BS=jnp.zeros((rows, length), jnp.int32),
        logprobs_BS=jnp.zeros((rows, length), jnp.float32),
        lengths_B=jnp.zeros((rows,), jnp.int32),
        finished_B=finished_B,
        slot=request.start,
    )
    return state, dataclasses.replace(request, row_keys_B2=row_keys(request.row_keys_B2, samples_B))


@functools.partial(jax.jit, static_argnames=("graphdef",), donate_argnames=("state",))
def _decode(graphdef: nnx.GraphDef[Decoder], params: Any, state: State, request: Request) -> State:
    """Extends all rows until every one has finished, the token limit is met, or the cache is full."""
    model = nnx.merge(graphdef, params)
    end = jnp.minimum(request.start + request.max_tokens, state.tokens_BS.shape[1])

    def more(state: State) -> jax.Array:
        return (state.slot < end) & ~jnp.all(state.finished_B)

    def step(state: State) -> State:
        slot, positions_B1 = state.slot, (state.slot - request.padding_B)[:, None]
        tokens_B1 = state.newest_B[:, None]
        hidden_B1D, cache = model(
            tokens_B1, positions_B1, jnp.ones_like(tokens_B1), cache=state.cache, cache_index=slot
        )
        logits_BV = model.logits(hidden_B1D[:, 0])
        chosen_B = choose_tokens(
            logits_BV, request.row_keys_B2, slot - request.start, request.temperature, request.top_p, request.top_k
        )
        logprobs_B = jnp.take_along_axis(logits_BV, chosen_B[:, None], axis=-1)[:, 0]
        logprobs_B -= jax.nn.logsumexp(logits_BV, axis=-1)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=1)
        return State(
            cache=cache,
            newest_B=chosen_B,
            tokens_BS=put(state.tokens_BS, chosen_B[:, None]),
            logprobs_BS=put(state.logprobs_BS, logprobs_B[:, None]),
            lengths_B=state.lengths_B + ~state.finished_B,
            finished_B=state.finished_B | jnp.any(chosen_B[:, None] == request.stop_ids_K, axis=-1),
            slot=slot + 1,
        )

    return jax.lax.while_loop(more, step, state)


@functools.partial(jax.jit, static_argnames=("length",))
def _grow(state: State, *, length: int) -> State:
    widen = ((0, 0), (0, length - state.tokens_BS.shape[1]))
    return dataclasses.replace(
        state,
        cache=state.cache.grow(length),
        tokens_BS=jnp.pad(state.tokens_BS, widen),
        logprobs_BS=jnp.pad(state.logprobs_BS, widen),
    )


def prompt_bucket(length: int) -> int:
    """The padded width of prompts up to `length` tokens: a power of two, at least 16."""
    return max(16, 1 << max(0, length - 1).bit_length())


def cache_bucket(length: int) -> int:
    """Slots for `length` tokens: finer than prompts (powers of two and 1.5 times them), every step reads them all."""
    power = max(32, 1 << (length - 1).bit_length())
    return power * 3 // 4 if power > 32 and length <= power * 3 // 4 else power


@functools.cache
def _graphdef(config: ModelConfig, dtype: Any) -> nnx.GraphDef[Decoder]:
    """One per architecture, whatever the given model's training options, so that all share their compilations.

    Layers are scanned: unrolled ones decode no faster on a CPU and take more than twice as long to compile.
    """
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=dtype)))[0]


class Sampler:
    """The host side: pads a batch, runs prefill and decode, fetches the result once.

    Args:
        config: of the Decoder whose parameters `sample` is given.
        dtype: of activations and cache.
        mesh: shards the batch over its data axes; every process gives the same prompts and gets all rows.
    """

    def __init__(self, config: ModelConfig, dtype: Any, *, mesh: Mesh | None = None):
        self._graphdef, self._config, self._mesh = _graphdef(config, jnp.dtype(dtype)), config, mesh
        # A prompt batch must be a multiple of this.
        self.ways = batch_ways(mesh) if mesh is not None else 1

    def sample(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        streams: Sequence[tuple[int, int]],
        *,
        batch: int,
        copies: int,
        max_tokens: int,
        temperature: float,
        top_p: float,
        top_k: int,
        stop_token_ids: Sequence[int],
    ) -> list[Row]:
        """Samples `copies` rows for each prompt; row u * copies + c is copy c of prompt u.

        Args:
            params: the Decoder's parameters.
            prompts: token ids, none empty.
            streams: (seed, sample) of each row, which decide its random stream.
            batch: prompts to compile for; the missing ones are dummies that have finished from the start.
        """
        width = prompt_bucket(max(len(prompt) for prompt in prompts) - 1)
        rows = len(prompts) * copies
        # Dummies look like prompts of one token, of which nothing is left for prefill.
        prompts_UP, newest_U = np.zeros((batch, width), np.int32), np.zeros(batch, np.int32)
        padding_U = np.full(batch, width, np.int32)
        for row, prompt in enumerate(prompts):
            newest_U[row], padding_U[row] = prompt[-1], width - len(prompt) + 1
            prompts_UP[row, padding_U[row] :] = prompt[:-1]
        seeds_B2, samples_B = np.zeros((batch * copies, 2), np.uint32), np.zeros(batch * copies, np.uint32)
        for row, (seed, sample) in enumerate(streams):
            seeds_B2[row], samples_B[row] = (seed >> 32, seed & 0xFFFFFFFF), sample
        stop_ids_K = np.full(max(8, 1 << len(stop_token_ids).bit_length()), -1, np.int32)
        stop_ids_K[: len(stop_token_ids)] = list(stop_token_ids)
        request = Request(
            row_keys_B2=self._sharded(seeds_B2),
            padding_B=self._sharded(np.repeat(padding_U, copies)),
            start=np.int32(width),
            max_tokens=np.int32(max_tokens),
            temperature=np.float32(temperature),
            top_p=np.float32(top_p),
            top_k=np.int32(top_k),
            stop_ids_K=stop_ids_K,
        )
        longest = cache_bucket(width + max_tokens)
        length = min(longest, max(FIRST_CACHE, cache_bucket(2 * width)))
        state, request = _prefill(
            self._graphdef,
            self._config,
            params,
            self._sharded(prompts_UP),
            self._sharded(np.repeat(newest_U, copies)),
            self._sharded(np.arange(batch * copies) >= rows),
            self._sharded(samples_B),
            request,
            length=length,
            copies=copies,
        )
        state = _decode(self._graphdef, params, state, request)
        while length < longest and not np.all(self._fetch(state.finished_B)):
            length = min(longest, 2 * length)
            state = _decode(self._graphdef, params, _grow(state, length=length), request)
        tokens_BS, logprobs_BS, lengths_B, finished_B = self._fetch(
            (state.tokens_BS, state.logprobs_BS, state.lengths_B, state.finished_B)
        )
        return [
            Row(
                tokens_BS[row, width : width + lengths_B[row]].tolist(),
                logprobs_BS[row, width : width + lengths_B[row]].tolist(),
                bool(finished_B[row]),
            )
            for row in range(rows)
        ]

    def _sharded(self, array: np.ndarray) -> Any:
        return array if self._mesh is None else jax.device_put(array, batch_sharding(self._mesh))

    def _fetch(self, tree: Any) -> Any:
        """Copies to the host; on a mesh every process first gathers all rows."""
        return jax.device_get(tree if self._mesh is None else _gather(tree, self._mesh))


@functools.partial(jax.jit, static_argnames=("mesh",))
def _gather(tree: Any, mesh: Mesh) -> Any:
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def trace_decode(
    config: ModelConfig, dtype: Any, params: Any, rows: int, slots: int, by_row: Any, whole: Any
) -> tuple[Any, State]:
    """The decode loop traced on shapes, for compiling it ahead of time.

    Args:
        params: the Decoder's parameters as shapes with shardings.
        rows, slots: of the cache.
        by_row, whole: shardings of an array whose rows are split, and of one that every device holds.

    Returns:
        (jax.stages.Traced, the state that it was traced with).
    """

    def shape(dims: tuple[int, ...], kind: Any, where: Any = by_row) -> Any:
        return jax.ShapeDtypeStruct(dims, kind, sharding=where)

    cache = jax.eval_shape(lambda: Cache.zeros(config, rows, slots, dtype))
    # Rows are the cache's second dimension.
    spread = jax.sharding.NamedSharding(by_row.mesh, jax.sharding.PartitionSpec(None, *by_row.spec))
    state = State(
        cache=Cache(
            shape(cache.k_LBSKH.shape, dtype, spread),
            shape(cache.v_LBSKH.shape, dtype, spread),
            shape((rows, slots), jnp.int32),
        ),
        newest_B=shape((rows,), jnp.int32),
        tokens_BS=shape((rows, slots), jnp.int32),
        logprobs_BS=shape((rows, slots), jnp.float32),
        lengths_B=shape((rows,), jnp.int32),
        finished_B=shape((rows,), jnp.bool_),
        slot=shape((), jnp.int32, whole),
    )
    request = Request(
        row_keys_B2=shape((rows, 2), jnp.uint32),
        padding_B=shape((rows,), jnp.int32),
        start=shape((), jnp.int32, whole),
        max_tokens=shape((), jnp.int32, whole),
        temperature=shape((), jnp.float32, whole),
        top_p=shape((), jnp.float32, whole),
        top_k=shape((), jnp.int32, whole),
        stop_ids_K=shape((8,), jnp.int32, whole),
    )
    return _decode.trace(_graphdef(config, jnp.dtype(dtype)), params, state, request), state
