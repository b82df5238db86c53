"""Named protocols: what they fix, to the byte, and where stop strings cut."""

import pytest

from w2sr_jax.core.config import SamplingConfig, validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.stage_config import PROTOCOLS, EvaluateConfig
from w2sr_jax.data import protocols
from w2sr_jax.data.chat import render

END_TOKENS = ("</s>", "<|im_end|>", "<|endoftext|>")
QWEN_BOXED = (
    b"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n2+2?\nPlease reason step by step, "
    b"and put your final answer within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
)
ABEL = b"Question:\n2+2?\nAnswer:\nLet's think step by step.\n"


def config(protocol: str, **changes) -> EvaluateConfig:
    return EvaluateConfig(model="m", problems="p", protocol=protocol, **changes)


@pytest.mark.parametrize(
    ("name", "prompt", "stops", "sampling"),
    [
        (
            "simplerl",
            QWEN_BOXED,
            (*END_TOKENS, "assistant", "user", "_end", "_start"),
            SamplingConfig(max_tokens=16000, temperature=1.0, top_p=0.95),
        ),
        (
            "simplerl-base",
            QWEN_BOXED,
            (*END_TOKENS, "assistant", "user", "_end", "_start"),
            SamplingConfig(max_tokens=16000),
        ),
        (
            "simplerl-abel",
            ABEL,
            (*END_TOKENS, "Question:", "Answer:"),
            SamplingConfig(max_tokens=16000, temperature=1.0, top_p=0.95),
        ),
        (
            "simplerl-abel-base",
            ABEL,
            (*END_TOKENS, "Question:", "Answer:"),
            SamplingConfig(max_tokens=16000),
        ),
        ("paper", QWEN_BOXED, END_TOKENS, SamplingConfig(max_tokens=32768, temperature=1.0, top_p=0.95)),
        ("greedy", QWEN_BOXED, (), SamplingConfig(max_tokens=16000)),
        ("avg@32", QWEN_BOXED, (), SamplingConfig(max_tokens=16000, temperature=1.0, top_p=0.95, n=32)),
    ],
)
def test_a_protocol_fixes_prompt_stops_sampling_and_budget(name, prompt, stops, sampling, tokenizer):
    asked = config(name)
    validate(asked)
    protocol, found = protocols.of(asked)
    assert render(protocol.template, "2+2?", tokenizer).encode() == prompt
    assert protocol.stops == stops
    assert found == sampling


def test_every_name_of_the_config_has_its_values():
    assert {*PROTOCOLS, "avg@k"} == set(protocols.PROTOCOLS)


def test_the_seed_stays_the_caller_s():
    asked = config("avg@4", sampling=SamplingConfig(seed=7))
    validate(asked)
    assert protocols.of(asked)[1].seed == 7


def test_without_a_protocol_the_config_s_own_fields_count():
    own = SamplingConfig(max_tokens=5, temperature=0.5, n=2)
    protocol, sampling = protocols.of(config("", template="abel", sampling=own))
    assert (protocol.template, protocol.stops, sampling) == ("abel", (), own)


@pytest.mark.parametrize("name", ["simplerl2", "avg@1", "avg@", "avg@0", "avg@k", "Greedy"])
def test_an_unknown_protocol_is_a_usage_error(name):
    with pytest.raises(UsageError, match=r"config.protocol: must be one of simplerl, .*, avg@K, got"):
        validate(config(name))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"template": "abel"}, "config.template"),
        ({"sampling": SamplingConfig(max_tokens=5)}, "config.sampling"),
        ({"sampling": SamplingConfig(temperature=1.0, n=2)}, "config.sampling"),
    ],
)
def test_what_a_protocol_fixes_cannot_be_set_beside_it(changes, key):
    with pytest.raises(UsageError, match=f"{key}: protocol 'paper' fixes it"):
        validate(config("paper", **changes))


@pytest.mark.parametrize(
    ("text", "stops", "start", "expected"),
    [
        ("the user is 5", ("user", "the"), 0, ""),
        ("the user is 5", ("user",), 0, "the "),
        ("the user is 5", ("none",), 0, "the user is 5"),
        ("user: 1 user: 2", ("user",), 4, "user: 1 "),
        ("a</s>b", (), 0, "a</s>b"),
    ],
)
def test_a_text_is_cut_at_its_first_stop_string(text, stops, start, expected):
    assert protocols.cut(text, stops, start) == expected
