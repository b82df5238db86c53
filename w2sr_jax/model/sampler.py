"""Autoregressive sampling, the host's half: which prompts are in the batch, and what comes out of it.

Widths come in buckets, everything else (weights, stop ids, temperature, number of tokens) is a runtime argument: the
number of compilations is that of the (batch, prompt, cache) buckets met, over all Samplers of one architecture. Rows
that are done are filled with the next prompts while the others go on, so that no batch waits for its longest answer.

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

from w2sr_jax.core.mesh import batch_ways, on_one_cpu, place_rows, platform, replicated
from w2sr_jax.model import buckets, decode_loop
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decode_loop import Fill, Request, State
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.kernels import onednn
from w2sr_jax.model.params import is_norm
from w2sr_jax.model.unrolled import unroll

REFILLS = 8  # a batch is filled an eighth at a time: one prefill for several prompts
LONG = 128  # the last rows go on in a smaller batch if completions may have so many tokens


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One sampled sequence on the host."""

    token_ids: list[int]
    logprobs: list[float]
    stopped: bool


OnRow = Callable[[int, Row], None]


@functools.cache
def graphdef_of(config: ModelConfig, dtype: Any) -> nnx.GraphDef[Decoder]:
    """One per architecture, whatever the given model's training options, so that all share their compilations."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=dtype)))[0]


class Sampler:
    """Samples from a Decoder's parameters.

    Args:
        config: of the Decoder whose parameters `sample` is given.
        dtype: of activations and cache.
        mesh: shards the batch over its data axes; every process gives the same prompts and gets all rows.

    Attributes:
        ways: parts into which the mesh splits a batch, whose prompts must be a multiple of it.
    """

    def __init__(self, config: ModelConfig, dtype: Any, *, mesh: Mesh | None = None):
        self._graphdef, self._config, self._mesh = graphdef_of(config, jnp.dtype(dtype)), config, mesh
        self.ways = batch_ways(mesh) if mesh is not None else 1
        self._dtype, self._on_cpu = jnp.dtype(dtype), on_one_cpu(mesh)
        self._by_layer = mesh is None and platform(mesh) != "tpu"

    def prepare(self, params: Any) -> Any:
        """A Decoder's parameters as `sample` wants them: in its dtype, since every step reads all of them.

        On one CPU or GPU it is a copy, `unrolled.Unrolled`.
        """
        if self._by_layer:
            matrices = [x for x in jax.tree.leaves(params) if x.ndim > 1]
            packed = self._on_cpu and onednn.packs(sum(x.size for x in matrices))
            return unroll(self._graphdef, params, packed=packed)
        return _in_dtype(params, self._dtype)

    def sample(
        self,
        weights: Any,
        prompts: Sequence[Sequence[int]],
        streams: Sequence[tuple[int, int]],
        limits: Sequence[int],
        *,
        batch: int,
        copies: int,
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
            limits: new tokens of each row at most.
            batch: prompts in the batch at once, a multiple of `ways`.
            on_row: called with each row's index and the row, soon after it is done.
        """
        stop_ids_K = np.full(max(8, 1 << len(stop_token_ids).bit_length()), -1, np.int32)
        stop_ids_K[: len(stop_token_ids)] = list(stop_token_ids)
        request = Request(
            temperature=np.float32(temperature),
            top_p=np.float32(top_p),
            top_k=np.int32(top_k),
            stop_ids_K=stop_ids_K,
        )
        run = _Run(self, weights, prompts, streams, limits, copies, request, on_row or (lambda index, row: None))
        return run.all(batch)

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
        weights: Any,
        prompts: Sequence[Sequence[int]],
        streams: Sequence[tuple[int, int]],
        limits: Sequence[int],
        copies: int,
        request: Request,
        on_row: OnRow,
    ):
        self._sampler, self._weights, self._request, self._on_row = sampler, weights, request, on_row
        self._prompts, self._streams, self._limits, self._copies = prompts, streams, limits, copies
        self._sizes = buckets.ON_CPU if sampler._on_cpu else buckets.ELSEWHERE
        self._rows: dict[int, Row] = {}
        self._next = 0  # prompts that have been taken

    def all(self, batch: int) -> list[Row]:
        """Every row, in order."""
        max_tokens = max(self._limits)
        width, held_B = self._width(self._prompts), np.full(batch * self._copies, -1)
        longest = buckets.cache_bucket(width + max_tokens)
        length = min(longest, self._sizes.cache(width))
        sampler = self._sampler
        state = decode_loop.empty(
            *(sampler._config, np.int32(width)),
            rows=held_B.size,
            length=length,
            tokens=max(16, 1 << (max_tokens - 1).bit_length()),
            dtype=sampler._dtype,
            by_layer=sampler._by_layer,
            tiled=sampler._on_cpu,
            mesh=sampler._mesh,
        )
        group, slot = max(1, batch // REFILLS), width
        while True:
            free = np.flatnonzero(held_B < 0)
            while 0 < (count := min(group, self._waiting())) <= free.size // self._copies:
                rows_R, free = np.split(free, [count * self._copies])
                state = self._refill(state, count, group, rows_R, held_B, slot)
            if np.all(held_B < 0):
                return [self._rows[index] for index in range(len(self._rows))]
            if fewer := self._fewer(held_B):
                rows_R = np.argsort(held_B < 0, stable=True)[:fewer]
                state, held_B = decode_loop.narrow(state, rows_R), held_B[rows_R]
            if slot == state.cache.length:
                first_B = sampler._fetch(state.first_B)
                state = self._make_room(state, int(np.min(first_B[held_B >= 0])), longest)
            state = self._decode(state, self._enough(held_B, group))
            done_B, slot = sampler._fetch((state.done_B, state.slot))
            self._collect(state, done_B, held_B)

    def _waiting(self) -> int:
        return len(self._prompts) - self._next

    def _enough(self, held_B: np.ndarray, group: int) -> int:
        """So many rows done, those without a prompt included, that the host has something to do.

        A part of a group is not filled in: prefill would read as many prompts, most of them dummies.
        """
        if waiting := self._waiting():
            return min(group, waiting) * self._copies
        return int(held_B.size - self._part(held_B.size))

    def _part(self, rows: int) -> int:
        """Rows of the next smaller batch; 0 where another compilation would not pay."""
        pays = self._sampler.ways == 1 and max(self._limits) >= LONG
        return self._sizes.smaller(rows) if pays else 0

    def _fewer(self, held_B: np.ndarray) -> int:
        """Rows of the smallest batch for what is left of this one; 0 is this one."""
        fewer, part = 0, 0 if self._waiting() else self._part(held_B.size)
        while part and np.sum(held_B >= 0) <= part:
            fewer, part = part, self._part(part)
        return fewer

    def _decode(self, state: State, enough: int) -> State:
        sampler = self._sampler
        return decode_loop.decode(
            *(sampler._graphdef, sampler._config, self._weights, state, self._request, np.int32(enough)),
            mesh=sampler._mesh,
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
        """Puts the next `count` prompts, of at most `group`, into free rows."""
        width = self._width(self._prompts[self._next : self._next + count])
        assert width <= slot  # longest prompts come first, and `_make_room` leaves this much
        first, sampler = self._next * self._copies, self._sampler
        held_B[rows_R] = np.arange(first, first + count * self._copies)
        size = -(-group // sampler.ways) * sampler.ways  # each part of a mesh reads as many prompts
        padded = np.zeros(size * self._copies, np.int32)
        padded[: rows_R.size] = rows_R
        fill = self._fill(count, size, width)
        new = decode_loop.prefill(sampler._graphdef, sampler._config, self._weights, fill, mesh=sampler._mesh)
        return decode_loop.refill(state, fill, new, padded, copies=self._copies, mesh=sampler._mesh)

    def _make_room(self, state: State, unused: int, longest: int) -> State:
        """For a full cache, of whose first slots so many are needed by no row."""
        slot = state.cache.length
        if self._next < len(self._prompts):
            unused = min(unused, slot - self._width(self._prompts[self._next :]))
        unused -= unused % state.cache.tile
        if unused and (4 * unused >= slot or slot >= longest):
            return decode_loop.shift(state, np.int32(unused))
        longer = self._sizes.cache(slot)
        return decode_loop.grow(state, length=min(longest, longer) if slot < longest else longer)

    def _width(self, prompts: Sequence[Sequence[int]]) -> int:
        return self._sizes.prompts(max(len(prompt) for prompt in prompts) - 1)

    def _fill(self, count: int, batch: int, width: int) -> Fill:
        """The next `count` prompts, and dummies up to `batch`: prompts of one token, of which prefill reads nothing."""
        prompts_UP, newest_U = np.zeros((batch, width), np.int32), np.zeros(batch, np.int32)
        padding_U = np.full(batch, width, np.int32)
        for row, prompt in enumerate(self._prompts[self._next : self._next + count]):
            newest_U[row], padding_U[row] = prompt[-1], width - len(prompt) + 1
            prompts_UP[row, padding_U[row] :] = prompt[:-1]
        rows, first = batch * self._copies, self._next * self._copies
        seeds_B2, samples_B = np.zeros((rows, 2), np.uint32), np.zeros(rows, np.uint32)
        limits_B = np.zeros(rows, np.int32)
        limits_B[: count * self._copies] = self._limits[first : first + count * self._copies]
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
            limits_B=sharded(limits_B),
            used_B=sharded(np.arange(rows) < count * self._copies),
        )


@functools.partial(jax.jit, static_argnames=("dtype",))
def _in_dtype(params: Any, dtype: Any) -> Any:
    """Parameters in the dtype of the activations, where they are; norms as they are."""

    def cast(param: nnx.Variable[Any]) -> nnx.Variable[Any]:
        return param if is_norm(param) else param.replace(param.get_value().astype(dtype))

    return jax.tree.map(cast, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


@functools.partial(jax.jit, static_argnames=("mesh",))
def _gather(tree: Any, mesh: Mesh) -> Any:
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))
