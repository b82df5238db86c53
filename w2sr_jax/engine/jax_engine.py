"""The engine without extra dependencies: the trainer's own decoder with a KV cache, on one device or on a mesh.

Requests are sorted by length and go through one batch, whose rows are filled again as they end. With n samples per
prompt it holds whole prompts, whose prefill is shared. Compilations are kept for the process: engines of one
architecture share them, and new weights need none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.engine.base import (
    Completion,
    OnFinished,
    Sampling,
    check_prompts,
    encode_prompts,
    make_completion,
    request_limits,
    request_seeds,
)
from w2sr_jax.model import hf
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.sampler import Row, Sampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True, slots=True)
class _Batch:
    """A call of the sampler: requests, (prompt, first sample) pairs of `copies` samples, `size` pairs at once."""

    requests: list[tuple[int, int]]
    size: int
    copies: int


def plan_batch(lengths: Sequence[int], n: int, batch_size: int, ways: int = 1) -> _Batch:
    """Prompts x n samples through about `batch_size` rows, longest prompts first.

    Args:
        lengths: tokens of each prompt; at least one.
        n: samples per prompt; they share a batch row's prefill if `batch_size` holds n of each device group.
        batch_size: rows at most (but at least one per device group).
        ways: device groups, which must divide the number of prompts in a batch.
    """
    copies = n if batch_size // n >= ways else 1
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    requests = [(prompt, sample) for prompt in order for sample in range(0, n, copies)]
    size = max(1, batch_size // copies // ways) * ways
    # For few requests a quarter, a sixteenth... of a batch. Finer steps would cost more compilations.
    while size % (4 * ways) == 0 and size // 4 >= len(requests):
        size //= 4
    return _Batch(requests, size, copies)


class JaxEngine:
    """Samples from a Decoder; see `engine.base.Generator`.

    Args:
        directory: an HF directory, or anything else that `hf.resolve` takes.
        dtype: of weights and activations; logits and sampling are fp32.
        mesh: where the weights live and the batch is split; default one device.
        batch_size: sequences decoded together.
    """

    def __init__(
        self, directory: str | Path, dtype: str = "float32", *, mesh: Mesh | None = None, batch_size: int = 64
    ):
        from w2sr_jax.data.chat import load_tokenizer

        if dtype not in ("float32", "bfloat16"):
            raise UsageError(f"dtype: must be float32 or bfloat16, got {dtype}")
        path = hf.resolve(directory)
        self._set_up(_load(path, dtype, mesh), load_tokenizer(path), mesh, batch_size)

    @classmethod
    def from_model(
        cls,
        model: Decoder,
        tokenizer: PreTrainedTokenizerFast | None,
        *,
        mesh: Mesh | None = None,
        batch_size: int = 64,
    ) -> Self:
        """An engine around a model in memory, with its dtypes. Without a tokenizer, texts stay empty."""
        engine = cls.__new__(cls)
        engine._set_up(model, tokenizer, mesh, batch_size)
        return engine

    def _set_up(
        self, model: Decoder, tokenizer: PreTrainedTokenizerFast | None, mesh: Mesh | None, batch_size: int
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size: must be at least 1, got {batch_size}")
        self._params = nnx.state(model)
        self._config, self._dtype = model.config, model.dtype.name
        self._tokenizer, self._mesh, self._batch_size = tokenizer, mesh, batch_size
        self._sampler = Sampler(model.config, model.dtype, mesh=mesh)
        self._weights = self._sampler.prepare(self._params)

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int] | None = None,
        limits: Sequence[int] | None = None,
        on_finished: OnFinished | None = None,
    ) -> list[list[Completion]]:
        """See `engine.base.Generator.generate`; `on_finished` is called as completions end."""
        sampling.check()
        prompt_seeds = request_seeds(sampling, seeds, len(prompts))
        prompt_limits = request_limits(sampling, limits, len(prompts))
        token_prompts = encode_prompts(prompts, self._tokenizer)
        check_prompts(token_prompts, sampling, self._config.vocab_size, self._config.max_position_embeddings)
        if not token_prompts:
            return []
        done = dict[tuple[int, int], Completion]()
        lengths = [len(prompt) for prompt in token_prompts]
        batch = plan_batch(lengths, sampling.n, self._batch_size, self._sampler.ways)
        keys = [(prompt, first + copy) for prompt, first in batch.requests for copy in range(batch.copies)]

        def finished(row: int, found: Row) -> None:
            prompt, sample = keys[row]
            logprobs = found.logprobs if sampling.logprobs else None
            completion = make_completion(found.token_ids, logprobs, stopped=found.stopped, tokenizer=self._tokenizer)
            done[prompt, sample] = completion
            if on_finished is not None:
                on_finished(prompt, sample, completion)

        self._sampler.sample(
            self._weights,
            [token_prompts[prompt] for prompt, _ in batch.requests],
            [(prompt_seeds[prompt], sample) for prompt, sample in keys],
            [prompt_limits[prompt] for prompt, _ in keys],
            batch=batch.size,
            copies=batch.copies,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop_token_ids=sampling.stop_token_ids,
            on_row=finished,
        )
        return [[done[prompt, sample] for sample in range(sampling.n)] for prompt in range(len(prompts))]

    def update_weights(self, source: Any) -> None:
        """Takes other weights of the same model; nothing is compiled again.

        Args:
            source: a directory as for the constructor, or a parameter tree as `nnx.split(model)` gives it
                (which must stay alive: a donated one takes the engine's weights with it).

        Raises:
            W2SRError: the weights belong to another model.
        """
        if isinstance(source, str | Path):
            model = _load(hf.resolve(source), jax.tree.leaves(self._params)[0].dtype.name, self._mesh)
            if model.config != self._config:
                raise W2SRError(f"{source}: is another model than the engine's; make a new engine")
            source = nnx.state(model)
        held, given = jax.tree_util.tree_flatten_with_path(self._params), jax.tree_util.tree_flatten_with_path(source)
        shapes, new_shapes = ({jax.tree_util.keystr(p): x.shape for p, x in tree} for tree in (held[0], given[0]))
        if wrong := [name for name in shapes | new_shapes if shapes.get(name) != new_shapes.get(name)]:
            raise W2SRError(
                f"update_weights: {len(wrong)} tensors are missing, extra or misshaped, the first {wrong[0]}: "
                f"{new_shapes.get(wrong[0])} instead of {shapes.get(wrong[0])}"
            )
        leaves = [new.astype(old.dtype) for (_, old), (_, new) in zip(held[0], given[0])]
        self._params = jax.tree.unflatten(held[1], leaves)
        self._weights = self._sampler.prepare(self._params)

    def describe(self) -> dict[str, Any]:
        """Provenance, JSON values only."""
        devices = [jax.devices()[0]] if self._mesh is None else list(self._mesh.devices.flat)
        return {
            "engine": "jax",
            "version": jax.__version__,
            "dtype": self._dtype,
            "batch_size": self._batch_size,
            "devices": len(devices),
            "device_kind": devices[0].device_kind,
            "mesh": None if self._mesh is None else dict(self._mesh.shape),
        }

    def close(self) -> None:
        """Nothing was started; the memory goes with the last reference."""


def _load(path: Path, dtype: str, mesh: Mesh | None) -> Decoder:
    kind = jnp.dtype(dtype).type
    return hf.load(path, mesh, kind, compute_dtype=kind)
