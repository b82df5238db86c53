r"""Prompts: templates, the tokens that stop a response, and how prompt and response become one training example.

The templates' exact texts are those of SimpleRL-Zoo and Qwen2.5-Math; a changed byte is another protocol.
"chat" is the tokenizer's own chat template over one user message: the problem, a newline, and the instruction of
qwen25-math-cot. "plain" is the problem alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
TEMPLATES: dict[str, str] = {
    "qwen-boxed": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{{input}}\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "abel": "Question:\n{input}\nAnswer:\nLet's think step by step.\n",
    "qwen25-math-cot": (
        f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\n{{input}}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "plain": "{input}",
    "chat": f"{{input}}\n{INSTRUCTION}",  # the user message; the tokenizer's template goes around it
}
# Tokens that end a turn or a document in one family or another; they stop a response wherever the tokenizer has
# them as added tokens. As a string of ordinary text ("user", "assistant") nothing ever stops a response.
STOP_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
    "</s>",
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# What opens a turn in a rendered prompt -> what closes the assistant's.
TURN_ENDS = {"<|im_start|>": "<|im_end|>", "<|start_header_id|>": "<|eot_id|>", "<start_of_turn>": "<end_of_turn>"}


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A prompt's tokens followed by a response's (and the closing token, when the response ended by itself)."""

    tokens: Sequence[int]
    prompt_length: int


def load_tokenizer(directory: str | Path) -> Any:
    """The tokenizer of a Hugging Face directory (a transformers PreTrainedTokenizerFast). Never asks the hub.

    Raises:
        W2SRError: there is no tokenizer.json, or it cannot be read.
    """
    directory = Path(directory)
    if not (directory / "tokenizer.json").is_file():
        raise W2SRError(
            f"{directory}: no tokenizer.json; save the tokenizer in its fast format beside the model "
            "(transformers: tokenizer.save_pretrained)"
        )
    from transformers import PreTrainedTokenizerFast

    # The tokenizers library raises plain Exception for what it cannot parse.
    try:
        return PreTrainedTokenizerFast.from_pretrained(directory)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise W2SRError(f"{directory}: the tokenizer cannot be read: {reason}") from None


def template_text(template: str, tokenizer: Any) -> str:
    """The text that defines a template, for provenance; that of "chat" includes the tokenizer's own.

    Raises:
        UsageError: an unknown template, or "chat" with a tokenizer that has none.
    """
    if template not in TEMPLATES:
        raise UsageError(f"template: must be one of {', '.join(TEMPLATES)}, got {template!r}")
    if template != "chat":
        return TEMPLATES[template]
    if not tokenizer.chat_template:
        raise UsageError("template 'chat': this model's tokenizer has no chat template; use qwen-boxed or abel")
    return f"{tokenizer.chat_template}\n{TEMPLATES[template]}"


def render(template: str, problem_text: str, tokenizer: Any) -> str:
    """The prompt as text with its special tokens, to be encoded with add_special_tokens=False.

    Where the tokenizer itself would begin a text with BOS (Llama), a prompt without a chat template begins with it.
    """
    template_text(template, tokenizer)
    prompt = TEMPLATES[template].replace("{input}", encodable(problem_text), 1)
    if template == "chat":
        from jinja2 import TemplateError

        try:
            return tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise W2SRError(f"template 'chat': the tokenizer's chat template fails: {error}") from None
    begins = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return tokenizer.bos_token + prompt if begins else prompt


def encodable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair: JSON may hold one, and tokenizers refuse it."""
    return _SURROGATE.sub("\ufffd", text)


def stop_token_ids(directory: str | Path, tokenizer: Any) -> tuple[tuple[int, ...], str]:
    """Every token that ends a response, and a sentence that says why each does.

    A base model's config may name one end only (Qwen2.5: <|endoftext|> 151643) while the prompt's format ends turns
    with another (<|im_end|> 151645): both stop.

    Raises:
        W2SRError: there is none at all.
    """
    reasons: dict[int, list[str]] = {}
    for name in ("config.json", "generation_config.json"):
        for token_id in _eos_ids(Path(directory) / name):
            reasons.setdefault(token_id, []).append(name)
    if tokenizer.eos_token_id is not None:
        reasons.setdefault(tokenizer.eos_token_id, []).append("tokenizer")
    added = tokenizer.get_added_vocab()
    for token in STOP_TOKENS:
        if token in added:
            reasons.setdefault(added[token], []).append("end of a turn or text")
    if not reasons:
        raise W2SRError(f"{directory}: nothing would end a response: set eos_token_id in config.json")
    words = [
        f"{tokenizer.convert_ids_to_tokens(token_id)} {token_id} ({', '.join(why)})"
        for token_id, why in reasons.items()
    ]
    return tuple(reasons), f"a response stops at {'; '.join(words)}"


def _eos_ids(path: Path) -> list[int]:
    if not path.is_file():
        return []
    config = read_json(path)
    found = config.get("eos_token_id") if isinstance(config, dict) else None
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if any(not isinstance(i, int) or isinstance(i, bool) for i in ids):
        raise W2SRError(f"{path}: eos_token_id: expected an integer or a list of them, got {found!r}")
    return ids


def closing_token_id(directory: str | Path | None, tokenizer: Any, template: str) -> int:
    """The token that SFT appends to a response: what ends a turn in a prompt made of turns, EOS otherwise.

    Args:
        directory: the model's, whose config may name EOS where the tokenizer does not; None asks the tokenizer only.

    Raises:
        W2SRError: there is none.
    """
    prompt, added = render(template, "", tokenizer), tokenizer.get_added_vocab()
    for opening, closing in TURN_ENDS.items():
        if opening in prompt and closing in added:
            return added[closing]
    if tokenizer.eos_token_id is not None:
        return tokenizer.eos_token_id
    ids = _eos_ids(Path(directory) / "config.json") if directory is not None else []
    if not ids:
        raise W2SRError(f"{directory or 'tokenizer'}: no end-of-sequence token: set eos_token in tokenizer_config.json")
    return ids[0]


def encode_examples(
    tokenizer: Any, prompts: Sequence[str], responses: Sequence[str], closing_ids: Sequence[int | None]
) -> list[Example]:
    """Examples, in one call of the tokenizer. Prompts and responses are encoded separately, so that a prompt's tokens
    are those that the model sees at inference, even where encoding the joined text would merge across the border.

    Args:
        prompts: as rendered; equal ones are encoded once.
        closing_ids: appended to the responses; None for one that was cut off, which must not teach to stop there.
    """
    texts = list(dict.fromkeys(prompts))
    encoded = _encode(tokenizer, texts + [encodable(response) for response in responses])
    prompt_ids = dict(zip(texts, encoded))
    examples = []
    for prompt, response_ids, closing_id in zip(prompts, encoded[len(texts) :], closing_ids, strict=True):
        closing = [] if closing_id is None else [closing_id]
        examples.append(Example(prompt_ids[prompt] + response_ids + closing, len(prompt_ids[prompt])))
    return examples


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    # verbose=False: lengths beyond the tokenizer's own limit are the pipeline's business, and counted there.
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
