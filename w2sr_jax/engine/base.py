"""What every engine takes and gives: Sampling in, Completion out, Generator between.

An engine turns prompts into completions. Stages know this file only, so engines can be exchanged; what differs
between them (rounding, speed, where the weights live) is told by `describe`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.records import FinishReason

# Called once per completion: index of the prompt, index of the sample, the completion.
OnFinished = Callable[[int, int, "Completion"], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """How logits become tokens.

    Args:
        max_tokens: longest completion, the stop token included.
        temperature: 0 is greedy, and then top_p, top_k and the seeds play no part.
        top_p: the smallest set of most probable tokens with at least this mass is kept (after top_k).
        top_k: most probable tokens kept; 0 keeps all.
        n: completions per prompt.
        seed: base of the per-prompt seeds when `generate` is given none.
        stop_token_ids: a completion ends with the first of these.
        logprobs: return the logprob of every token.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    n: int = 1
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    logprobs: bool = False

    def check(self) -> None:
        """Raises UsageError naming the first value that makes no sense."""
        limits: tuple[tuple[str, Any, bool, str], ...] = (
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("temperature", self.temperature, self.temperature >= 0, "0 (greedy) or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "in (0, 1]"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (all) or more"),
            ("n", self.n, self.n >= 1, "at least 1"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
            ("stop_token_ids", self.stop_token_ids, all(i >= 0 for i in self.stop_token_ids), "token ids"),
        )
        for name, value, good, wanted in limits:
            if not good:
                raise UsageError(f"sampling.{name}: must be {wanted}, got {value}")


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote after a prompt.

    Args:
        text: without the stop token; other special tokens are kept.
        token_ids: with the stop token, when there is one.
        logprobs: one per token id, of the model's plain softmax (temperature 1, nothing truncated, fp32).
        finish_reason: "stop" if the last token is a stop token, else "length"; "failed" (and no tokens) where the
            engine died of this request again and again.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float] | None
    finish_reason: FinishReason


class Generator(Protocol):
    """An engine."""

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int] | None = None,
        limits: Sequence[int] | None = None,
        on_finished: OnFinished | None = None,
    ) -> list[list[Completion]]:
        """Completes every prompt `sampling.n` times, in the order given.

        Args:
            prompts: texts (encoded without adding special tokens) or token ids.
            seeds: one per prompt; (seed, sample) alone decides the random stream of a completion, whatever
                else is in the batch. Default: made from sampling.seed and the prompt's index.
            limits: of each prompt, how many tokens its completions may have; default sampling.max_tokens for all.
            on_finished: called for each completion once it exists, in no particular order.

        Raises:
            W2SRError: a prompt that cannot be completed within the model's context, by its index.
        """
        ...

    def update_weights(self, source: Any) -> None:
        """Takes new weights of the same model: a directory, or what the engine holds in memory."""
        ...

    def describe(self) -> dict[str, Any]:
        """Provenance for manifests: engine, version, dtype, batch size, JSON values only."""
        ...

    def close(self) -> None:
        """Ends what the engine started; it cannot be used afterwards. A second call does nothing."""
        ...


def request_seeds(sampling: Sampling, seeds: Sequence[int] | None, count: int) -> list[int]:
    """One 64-bit seed per prompt; without `seeds`, base seeds never share a stream (high and low halves)."""
    if seeds is None:
        return [(sampling.seed % 2**32) << 32 | index for index in range(count)]
    if len(seeds) != count:
        raise UsageError(f"seeds: {len(seeds)} given for {count} prompts")
    return [int(seed) % 2**64 for seed in seeds]


def request_limits(sampling: Sampling, limits: Sequence[int] | None, count: int) -> list[int]:
    """New tokens of each prompt at most."""
    if limits is None:
        return [sampling.max_tokens] * count
    if len(limits) != count:
        raise UsageError(f"limits: {len(limits)} given for {count} prompts")
    if wrong := [limit for limit in limits if not 1 <= limit <= sampling.max_tokens]:
        raise UsageError(f"limits: each must be 1 to sampling.max_tokens = {sampling.max_tokens}, got {wrong[0]}")
    return list(limits)


def check_prompts(
    prompts: Sequence[Sequence[int]], sampling: Sampling, vocab_size: int, context: int, names: Sequence[str] = ()
) -> None:
    """Raises W2SRError for the first prompt that is empty, out of the vocabulary, or too long for the context.

    Args:
        names: what to call each; by default its index.
    """
    for prompt, name in zip(prompts, names or [f"prompt {index}" for index in range(len(prompts))], strict=True):
        if not prompt:
            raise W2SRError(f"{name}: no tokens; a prompt needs at least one")
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            raise W2SRError(f"{name}: a token id lies outside the model's vocabulary of {vocab_size}")
        if len(prompt) + sampling.max_tokens > context:
            raise W2SRError(
                f"{name}: {len(prompt)} tokens + max_tokens {sampling.max_tokens} exceed the model's "
                f"context of {context} (max_position_embeddings); lower max_tokens or shorten the prompt"
            )


def encode_prompts(prompts: Sequence[str] | Sequence[Sequence[int]], tokenizer: Any) -> list[list[int]]:
    """Token ids of every prompt; texts are encoded without adding special tokens."""
    encoded = []
    for prompt in prompts:
        if not isinstance(prompt, str):
            encoded.append([int(token) for token in prompt])
        elif tokenizer is None:
            raise UsageError("prompts: this engine has no tokenizer; give token ids")
        else:
            encoded.append(tokenizer.encode(prompt, add_special_tokens=False))
    return encoded


def make_completion(token_ids: list[int], logprobs: list[float] | None, *, stopped: bool, tokenizer: Any) -> Completion:
    """A Completion with its text, which stays empty without a tokenizer."""
    shown, text = token_ids[:-1] if stopped else token_ids, ""
    if tokenizer is not None:
        text = str(tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return Completion(text, token_ids, logprobs, "stop" if stopped else "length")
