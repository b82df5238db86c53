r"""The embedded task's tokenizer: one token a character, and a few longer ones that are whole in every response.

It is written as tokenizer.json and tokenizer_config.json, which transformers and vLLM load like any other.
`\boxed{`, `<work>` and the rest of a response are ordinary tokens, so that decoding never drops them; only the end of
text and padding are special.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from w2sr_jax.core.files import write_json, write_text
from w2sr_jax.micro.task import BOX, QUESTION, WORK

END, PAD, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|unk|>"
SPECIAL = (END, PAD, UNKNOWN)
LONG = (WORK, BOX, QUESTION)
CHARACTERS = {"arithmetic": "0123456789+-*=}", "letters": "abcdefgh1234=}"}


def vocabulary(domain: str = "arithmetic", family: str = "qwen2") -> dict[str, int]:
    """Token -> id. Families share the special tokens only: what passes from one to the other has to be text."""
    ordinary = [*LONG, *CHARACTERS[domain]]
    return {token: i for i, token in enumerate((*SPECIAL, *(ordinary if family == "qwen2" else reversed(ordinary))))}


VOCABULARY = vocabulary()


def make_tokenizer(domain: str = "arithmetic", family: str = "qwen2") -> Tokenizer:
    """The tokenizer. Decoding what it encoded gives the same text, as long as the text is of the task."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary(domain, family), unk_token=UNKNOWN))
    pattern = "|".join((*map(re.escape, LONG), r"[\s\S]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()  # tokens are put together without spaces
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def save_tokenizer(directory: Path, context: int, domain: str = "arithmetic", family: str = "qwen2") -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    Args:
        context: longest text in tokens, as the tokenizer's config states it.
    """
    serialized = json.loads(make_tokenizer(domain, family).to_str())
    write_text(directory / "tokenizer.json", json.dumps(serialized, indent=1, ensure_ascii=False) + "\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
    }
    write_json(directory / "tokenizer_config.json", config)
