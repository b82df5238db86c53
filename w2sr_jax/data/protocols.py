"""Named evaluation protocols: prompt, stop strings, sampling and token budget in one word, so that none is mixed.

What each value rests on: [V] read in its source, [2nd] another project's notes about the official code, [ours] a choice
of ours where neither says anything. SimpleRL's values were read in hkust-nlp/simpleRL-reason at cf1c785
(examples/simplelr_math_eval/math_eval.py and sh/eval.sh, README.md).

Engines here stop at token ids only. A stop string is therefore applied afterwards, by cutting the text at its first
occurrence: the same score as stopping there, for more tokens. SimpleRL's lists hold ordinary words (`user`,
`assistant`), which cut solutions that use them and hide students that never stop; `evaluate` counts both effects.
"""

from __future__ import annotations

import dataclasses

from w2sr_jax.core.config import SamplingConfig
from w2sr_jax.core.stage_config import AVERAGE_OF_K, EvaluateConfig

END_TOKENS = ("</s>", "<|im_end|>", "<|endoftext|>")  # [V], as strings: a model may also spell them out
QWEN_WORDS = ("assistant", "user", "_end", "_start")  # [V], for every template with qwen in its name
ABEL_WORDS = ("Question:", "Answer:")  # [V]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a benchmark is asked. The token budget ends at the model's context where that is shorter."""

    template: str
    stops: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float = 1.0
    n: int = 1


# SimpleRL evaluates its RL-tuned models at temperature 1, top-p 0.95, and base models greedily [V]: two protocols,
# which the report refuses to compare unless told to. It asks with qwen-boxed, or with abel where a model was tuned on
# that.
_RL = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 16_000}  # [V]
_BASE = {"temperature": 0.0, "max_tokens": 16_000}  # [V]; top-p plays no part
_QWEN = {"template": "qwen-boxed", "stops": END_TOKENS + QWEN_WORDS}  # [V]
_ABEL = {"template": "abel", "stops": END_TOKENS + ABEL_WORDS}  # [V]

PROTOCOLS: dict[str, Protocol] = {
    "simplerl": Protocol(**_QWEN, **_RL),  # type: ignore[arg-type]
    "simplerl-base": Protocol(**_QWEN, **_BASE),  # type: ignore[arg-type]
    "simplerl-abel": Protocol(**_ABEL, **_RL),  # type: ignore[arg-type]
    "simplerl-abel-base": Protocol(**_ABEL, **_BASE),  # type: ignore[arg-type]
    "paper": Protocol(
        template="qwen-boxed",  # [ours]: that of the teachers' own training
        stops=END_TOKENS,  # [ours]: no list of words is known for it
        max_tokens=32_768,  # [2nd]
        temperature=1.0,  # [ours]: it is not known; 1.0 is what SimpleRL pairs with the same top-p
        top_p=0.95,  # [2nd]
    ),
    # [ours], both: what we report by default, and the mean of K samples where one is too noisy (AIME24 has 30 problems)
    "greedy": Protocol(template="qwen-boxed", stops=(), max_tokens=16_000, temperature=0.0),
    "avg@k": Protocol(template="qwen-boxed", stops=(), max_tokens=16_000, temperature=1.0, top_p=0.95),
}


def of(config: EvaluateConfig) -> tuple[Protocol, SamplingConfig]:
    """The protocol of a validated config and its sampling; without a name, what the config's own fields say."""
    own = config.sampling
    if not config.protocol:
        asked = Protocol(
            template=config.template,
            stops=(),
            max_tokens=own.max_tokens,
            temperature=own.temperature,
            top_p=own.top_p,
            n=own.n,
        )
        return asked, own
    found = AVERAGE_OF_K.fullmatch(config.protocol)
    protocol = dataclasses.replace(PROTOCOLS["avg@k"], n=int(found[1])) if found else PROTOCOLS[config.protocol]
    sampling = SamplingConfig(
        max_tokens=protocol.max_tokens,
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        n=protocol.n,
        seed=own.seed,
    )
    return protocol, sampling


def cut(text: str, stops: tuple[str, ...], start: int = 0) -> str:
    """The text before the first occurrence of any stop string at or after `start`."""
    places = [place for stop in stops if (place := text.find(stop, start)) >= 0]
    return text[: min(places)] if places else text
