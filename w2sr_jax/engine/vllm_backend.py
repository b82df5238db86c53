"""What runs vLLM for `vllm_engine`: a child process (vllm_offline.py) or servers (vllm_server.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from w2sr_jax.core.errors import W2SRError

Key = tuple[int, int]  # (prompt, sample)


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One sample of one prompt; `seed` is None where decoding is greedy or vLLM draws as it likes."""

    key: Key
    prompt: Sequence[int]
    seed: int | None
    max_tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `stopped` says that the last token is a stop token."""

    key: Key
    token_ids: list[int]
    logprobs: list[float] | None
    stopped: bool


OnAnswer = Callable[[Answer], None]


class EngineDied(W2SRError):
    """vLLM is gone; what it has not answered can be asked again.

    Args:
        in_flight: requests that it was working on, any of which may be the reason.
    """

    def __init__(self, message: str, in_flight: Collection[Key] = ()):
        super().__init__(message)
        self.in_flight = frozenset(in_flight)


class Backend(Protocol):
    """A vLLM that has been started."""

    places: Sequence[str]  # its servers, or "offline"
    about: dict[str, Any]  # mode, version, device_kind, devices, max_model_len, batch_invariant

    def run(
        self, requests: Sequence[Request], params: dict[str, Any], on_answer: OnAnswer, place: str | None = None
    ) -> None:
        """Answers every request, in any order.

        Args:
            params: further fields of vLLM's SamplingParams.
            on_answer: called in the caller's thread as each answer arrives.
            place: ask only this one of `places`.

        Raises:
            EngineDied: start another backend and ask again for what has not been answered.
            W2SRError: it refused; asking again would not help.
        """
        ...

    def update_weights(self, directory: str) -> None:
        """Loads other weights of the same model, and forgets what was computed with the old ones."""
        ...

    def close(self) -> None:
        """Ends what it started; a second call does nothing."""
        ...
