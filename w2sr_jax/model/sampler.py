"""Autoregressive sampling, the host's half: which prompts are in the batch, and what comes out of it.

Widths come in buckets, everything else (weights, stop ids, temperature, number of tokens) is a runtime argument: the
number of compilations is that of the (batch, prompt, cache) buckets met, over all Samplers of one architecture. On one
device, rows that are done are filled with the next prompts while the others go on, so that no batch waits for its
longest answer.

Shape letters: as in decode_loop.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.mesh import LogicalAxis, batch_ways, place_rows, replicated, sharding
from w2sr_jax.model import decode_loop
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decode_loop import Fill, Request, State
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.kv_cache import KEY_AXES, VALUE_AXES, Cache
from w2sr_jax.model.unrolled import Unrolled, unroll

# Slots of the first cache. It doubles as it goes up to what the longest completion needs.
FIRST_CACHE = 512
NARROWING, LEAST_ROWS, LONG = 4, 8, 128  # the last quarter goes on alone, if completions may have so many tokens
REFILLS = 8  # a batch is filled again when an eighth of it is done: one prefill for several prompts


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One sampled sequence on the host."""

    token_ids: list[int]
    logprobs: list[float]
    stopped: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """What `Sampler.sample` takes: see `Sampler.prepare`."""

    params: Any
    unrolled: Unrolled | None


OnRow = Callable[[int, Row], None]


def prompt_bucket(length: int) -> int:
    """The padded width of prompts up to `length` tokens: a power of two or 1.5 times one, at least 16."""
    return _bucket(length, 16)


def cache_bucket(length: int) -> int:
    """Slots for `length` tokens, in the same steps from 32 on."""
    return _bucket(length, 32)


def _bucket(length: int, least: int) -> int:
    power = max(least, 1 << max(0, length - 1).bit_length())
    return power * 3 // 4 if power > least and length <= power * 3 // 4 else power


@functools.cache
def _graphdef(config: ModelConfig, dtype: Any) -> nnx.GraphDef[Decoder]:
    """One per architecture, whatever the given model's training options, so that all share their compilations."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=dtype)))[0]


class Sampler:
    """Samples from a Decoder's parameters.

    Args:
        config: of the Decoder whose parameters `sample` is given.
        dtype: of activations and cache.
        mesh: shards the batch over its data axes; every process gives the same prompts and gets all rows.
    """

    def __init__(self, config: ModelConfig, dtype: Any, *, mesh: Mesh | None = None):
        self._graphdef, self._config, self._mesh = _graphdef(config, jnp.dtype(dtype)), config, mesh
        # A prompt batch must be a multiple of this; with more than one, rows are not filled again.
        self.ways = batch_ways(mesh) if mesh is not None else 1
        self._by_layer = mesh is None and jax.default_backend() == "cpu"

    def prepare(self, params: Any) -> Weights:
        """A Decoder's parameters as `sample` wants them: on one CPU device with a copy laid out for decoding."""
        return Weights(params, unroll(self._graphdef, params) if self._by_layer else None)

    def sample(
        self,
        weights: Weights,
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
        on_row: OnRow | None = None,
    ) -> list[Row]:
        """Samples `copies` rows for each prompt; row u * copies + c is copy c of prompt u.

        Args:
            weights: of `prepare`.
            prompts: token ids, none empty; the longest first, where there are more than `batch`.
            streams: (seed, sample) of each row, which decide its random stream.
            batch: prompts in the batch at once. Missing ones are dummies that are done from the start.
            on_row: called with each row's index and the row, soon after it is done.
        """
        if len(prompts) > batch and self.ways > 1:
            raise ValueError(f"{len(prompts)} prompts for a batch of {batch}, which is not filled again on a mesh")
        stop_ids_K = np.full(max(8, 1 << len(stop_token_ids).bit_length()), -1, np.int32)
        stop_ids_K[: len(stop_token_ids)] = list(stop_token_ids)
        request = Request(
            max_tokens=np.int32(max_tokens),
            temperature=np.float32(temperature),
            top_p=np.float32(top_p),
            top_k=np.int32(top_k),
            stop_ids_K=stop_ids_K,
        )
        run = _Run(self, weights, prompts, streams, copies, request, on_row or (lambda index, row: None))
        return run.all(batch, max_tokens)

    def _sharded(self, array: np.ndarray) -> Any:
        return array if self._mesh is None else place_rows(array, self._mesh, len(array))

    def _fetch(self, tree: Any) -> Any:
        """Copies to the host; on a mesh every process first gathers all rows."""
        return jax.device_get(tree if self._mesh is None else _gather(tree, self._mesh))


class _Run:
    """One call of `Sampler.sample`."""

    def __init__(
        self,
        sampler: Sampler,
        weights: Weights,
        prompts: Sequence[Sequence[int]],
        streams: Sequence[tuple[int, int]],
        copies: int,
        request: Request,
        on_row: OnRow,
    ):
        self._sampler, self._weights, self._request, self._on_row = sampler, weights, request, on_row
        self._prompts, self._streams, self._copies = prompts, streams, copies
        self._rows: dict[int, Row] = {}
        self._next = 0  # prompts that have been taken

    def all(self, batch: int, max_tokens: int) -> list[Row]:
        """Every row, in order."""
        sampler, copies = self._sampler, self._copies
        width = self._width(self._prompts)
        longest = cache_bucket(width + max_tokens)
        length = min(longest, max(FIRST_CACHE, cache_bucket(2 * width)))
        # Which row of the result each row of the batch is; -1 is none.
        held_B = np.full(batch * copies, -1)
        count = min(batch, len(self._prompts))
        held_B[: count * copies] = np.arange(count * copies)
        state = decode_loop.start(
            sampler._graphdef,
            self._weights.params,
            self._fill(count, batch, width),
            copies=copies,
            length=length,
            tokens=max(16, 1 << (max_tokens - 1).bit_length()),
            by_layer=sampler._by_layer,
            mesh=sampler._mesh,
        )
        group = max(1, batch // REFILLS)
        while True:
            waiting = len(self._prompts) - self._next
            fewer = 0 if waiting else self._fewer(held_B.size)
            enough = int(np.sum(held_B < 0)) + min(group, waiting) * copies if waiting else held_B.size - fewer
            state = self._decode(state, enough)
            done_B, first_B, slot = sampler._fetch((state.done_B, state.first_B, state.slot))
            self._collect(state, done_B, held_B)
            free = np.flatnonzero(held_B < 0)
            while (fits := min(group, len(self._prompts) - self._next, free.size // copies)) > 0:
                rows_R, free = free[: fits * copies], free[fits * copies :]
                state = self._refill(state, fits, group, rows_R, held_B, int(slot))
                first_B = sampler._fetch(state.first_B)
            if np.all(held_B < 0):
                return [self._rows[index] for index in range(len(self._rows))]
            if np.sum(held_B >= 0) <= fewer:
                rows_R = np.argsort(held_B < 0, stable=True)[:fewer]
                state, held_B, first_B = decode_loop.narrow(state, rows_R), held_B[rows_R], first_B[rows_R]
            if slot == state.cache.length:
                state = self._make_room(state, int(np.min(first_B[held_B >= 0])), longest)

    def _fewer(self, rows: int) -> int:
        """Rows of the smaller batch in which the last ones go on; 0 where another compilation would not pay."""
        fewer = rows // NARROWING
        return fewer if self._sampler.ways == 1 and fewer >= LEAST_ROWS and self._request.max_tokens >= LONG else 0

    def _decode(self, state: State, enough: int) -> State:
        sampler, unrolled = self._sampler, self._weights.unrolled
        weights = self._weights.params if unrolled is None else unrolled
        return decode_loop.decode(
            *(sampler._graphdef, sampler._config, weights, state, self._request, np.int32(enough)), mesh=sampler._mesh
        )

    def _collect(self, state: State, done_B: np.ndarray, held_B: np.ndarray) -> None:
        """Takes rows that are done off the batch."""
        finished = np.flatnonzero(done_B & (held_B >= 0))
        if not finished.size:
            return
        tokens_BN, logprobs_BN, lengths_B = self._sampler._fetch((state.tokens_BN, state.logprobs_BN, state.lengths_B))
        for row in finished:
            ids = tokens_BN[row, : lengths_B[row]].tolist()
            found = Row(ids, logprobs_BN[row, : lengths_B[row]].tolist(), ids[-1] in self._request.stop_ids_K)
            index, held_B[row] = int(held_B[row]), -1
            self._rows[index] = found
            self._on_row(index, found)

    def _refill(self, state: State, count: int, group: int, rows_R: np.ndarray, held_B: np.ndarray, slot: int) -> State:
        """Puts the next `count` prompts into free rows."""
        width = self._width(self._prompts[self._next :])
        assert width <= slot  # longest prompts come first, and `_make_room` leaves this much
        first = self._next * self._copies
        held_B[rows_R] = np.arange(first, first + count * self._copies)
        padded = np.zeros(group * self._copies, np.int32)
        padded[: rows_R.size] = rows_R
        fill = self._fill(count, group, width)
        sampler = self._sampler
        return decode_loop.refill(sampler._graphdef, self._weights.params, state, fill, padded, copies=self._copies)

    def _make_room(self, state: State, unused: int, longest: int) -> State:
        """For a full cache, of whose first slots so many are needed by no row."""
        slot = state.cache.length
        if self._next < len(self._prompts):
            unused = min(unused, slot - self._width(self._prompts[self._next :]))
        if 4 * unused >= slot or slot >= longest:
            return decode_loop.shift(state, np.int32(unused))
        return decode_loop.grow(state, length=min(longest, 2 * slot))

    def _width(self, prompts: Sequence[Sequence[int]]) -> int:
        return prompt_bucket(max(len(prompt) for prompt in prompts) - 1)

    def _fill(self, count: int, batch: int, width: int) -> Fill:
        """The next `count` prompts, and dummies up to `batch`: prompts of one token, of which prefill reads nothing."""
        prompts_UP, newest_U = np.zeros((batch, width), np.int32), np.zeros(batch, np.int32)
        padding_U = np.full(batch, width, np.int32)
        for row, prompt in enumerate(self._prompts[self._next : self._next + count]):
            newest_U[row], padding_U[row] = prompt[-1], width - len(prompt) + 1
            prompts_UP[row, padding_U[row] :] = prompt[:-1]
        rows, first = batch * self._copies, self._next * self._copies
        seeds_B2, samples_B = np.zeros((rows, 2), np.uint32), np.zeros(rows, np.uint32)
        for row, (seed, sample) in enumerate(self._streams[first : first + count * self._copies]):
            seeds_B2[row], samples_B[row] = (seed >> 32, seed & 0xFFFFFFFF), sample
        self._next += count
        sharded = self._sampler._sharded
        return Fill(
            prompts_UP=sharded(prompts_UP),
            padding_U=sharded(padding_U),
            newest_U=sharded(newest_U),
            seeds_B2=sharded(seeds_B2),
            samples_B=sharded(samples_B),
            used_B=sharded(np.arange(rows) < count * self._copies),
        )


@functools.partial(jax.jit, static_argnames=("mesh",))
def _gather(tree: Any, mesh: Mesh) -> Any:
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def trace_decode(config: ModelConfig, dtype: Any, params: Any, rows: int, slots: int, mesh: Mesh) -> tuple[Any, State]:
    """The decode loop traced on shapes, for compiling it ahead of time.

    Args:
        params: the Decoder's parameters as shapes with shardings.
        rows, slots: of the cache.

    Returns:
        (jax.stages.Traced, the state that it was traced with).
    """

    def shape(dims: tuple[int, ...], kind: Any, axes: tuple[LogicalAxis, ...] | None = None) -> Any:
        where = sharding(axes or ("batch", *(None for _ in dims[1:])), dims, mesh) if dims else replicated(mesh)
        return jax.ShapeDtypeStruct(dims, kind, sharding=where)

    L, K, H = config.num_layers, config.num_kv_heads, config.head_dim
    state = State(
        cache=Cache(shape((L, rows, K, H, slots), dtype, KEY_AXES), shape((L, rows, K, slots, H), dtype, VALUE_AXES)),
        slot=shape((), jnp.int32),
        first_B=shape((rows,), jnp.int32),
        newest_B=shape((rows,), jnp.int32),
        keys_B2=shape((rows, 2), jnp.uint32),
        tokens_BN=shape((rows, slots), jnp.int32),
        logprobs_BN=shape((rows, slots), jnp.float32),
        lengths_B=shape((rows,), jnp.int32),
        done_B=shape((rows,), jnp.bool_),
    )
    number = functools.partial(shape, ())
    request = Request(
        max_tokens=number(jnp.int32),
        temperature=number(jnp.float32),
        top_p=number(jnp.float32),
        top_k=number(jnp.int32),
        stop_ids_K=shape((8,), jnp.int32, (None,)),
    )
    graphdef = _graphdef(config, jnp.dtype(dtype))
    traced: Any = decode_loop.decode  # a jitted function
    return traced.trace(graphdef, config, params, state, request, number(jnp.int32), mesh=mesh), state
