"""A small byte-level tokenizer with Qwen's specials, and writers of traces, for the data tests."""

import dataclasses
import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.files import write_jsonl
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.data.chat import load_tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture
def save_tokenizer(tmp_path):
    """Writes a tokenizer directory; keyword arguments replace values of tokenizer_config.json."""

    def save(name="tokenizer", specials=SPECIALS, merges=(), adds_bos=None, **config):
        directory = tmp_path / name
        directory.mkdir()
        vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        for left, right in merges:
            vocab[left + right] = len(vocab)
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
        if adds_bos:
            from tokenizers.processors import TemplateProcessing

            bos = (adds_bos, tokenizer.token_to_id(adds_bos))
            tokenizer.post_processor = TemplateProcessing(single=f"{adds_bos} $A", special_tokens=[bos])
        tokenizer.save(str(directory / "tokenizer.json"))
        values = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
        } | config
        (directory / "tokenizer_config.json").write_text(json.dumps(values))
        return directory

    return save


@pytest.fixture
def tokenizer_dir(save_tokenizer):
    return save_tokenizer()


@pytest.fixture
def tokenizer(tokenizer_dir):
    return load_tokenizer(tokenizer_dir)


@pytest.fixture
def make_data(tmp_path):
    """Writes problems and traces with responses of the given lengths; returns the DataConfig that names them."""

    def make(lengths=(5, 9, 3, 12, 7, 30, 2, 8, 6, 11), finish=None, traces=None, **config):
        problems = [Problem(id=f"p/{i}", problem=f"What is {i}?", answer=str(i)) for i in range(len(lengths))]
        if traces is None:
            traces = [
                Trace(
                    problem_id=f"p/{i}",
                    sample=0,
                    response=(f"{i}:" + "abcdefghij" * n)[:n],
                    response_tokens=n + 1,
                    finish_reason=(finish or {}).get(i, "stop"),
                    teacher="t",
                )
                for i, n in enumerate(lengths)
            ]
        write_jsonl(tmp_path / "problems.jsonl", problems)
        write_jsonl(tmp_path / "traces.jsonl", traces)
        default = DataConfig(
            problems=str(tmp_path / "problems.jsonl"),
            traces=str(tmp_path / "traces.jsonl"),
            template="plain",
            max_length=48,
            batch_size=4,
        )
        return dataclasses.replace(default, **config)

    return make
