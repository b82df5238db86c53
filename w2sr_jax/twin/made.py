"""Random weights of a given shape, a tokenizer of as many words, and traces of random words."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from w2sr_jax.core.files import read_json, write_json, write_jsonl, write_text
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.core.tool_config import RandomConfig
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

END, PAD, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|unk|>"
FIRST_WORD = 3
PROMPT_WORDS = 16


def make(config: RandomConfig, directory: Path, dtype: str) -> tuple[Path, Path, Path]:
    """Writes what is not there yet.

    Args:
        dtype: of the weights in the file.

    Returns:
        Paths of the model, problems.jsonl and traces.jsonl.
    """
    raw = read_json(config.shape) | {"eos_token_id": 0, "pad_token_id": 1}
    model = ModelConfig.from_hf(raw, config.shape)
    if not (directory / "model").is_dir():
        save_words(directory / "tokenizer", model.vocab_size, model.max_position_embeddings)
        jax.config.update("jax_platforms", "cpu")  # an accelerator belongs to the sides' processes
        weights = Decoder(model, rngs=nnx.Rngs(config.seed), param_dtype=jnp.float32)
        hf.save(weights, directory / "model", dtype, tokenizer_from=directory / "tokenizer")
    if not (directory / "traces.jsonl").exists():
        problems, traces = draw(config, model.vocab_size)
        write_jsonl(directory / "problems.jsonl", problems)
        write_jsonl(directory / "traces.jsonl", traces)
    return directory / "model", directory / "problems.jsonl", directory / "traces.jsonl"


def draw(config: RandomConfig, vocab_size: int) -> tuple[list[Problem], list[Trace]]:
    """Problems, and one response each, of words whose frequencies follow Zipf's law: something can be learnt."""
    rng = np.random.default_rng(config.seed)
    share = 1.0 / np.arange(1, vocab_size - FIRST_WORD + 1)
    share /= share.sum()

    def words(count: int) -> str:
        return " ".join(f"w{number}" for number in FIRST_WORD + rng.choice(len(share), count, p=share))

    problems, traces = [], []
    for number in range(config.traces):
        length = int(rng.integers(config.shortest, config.longest + 1))
        problems.append(Problem(id=f"r{number:06d}", problem=words(PROMPT_WORDS), answer="0", verifier="exact"))
        traces.append(
            Trace(
                problem_id=problems[-1].id,
                sample=0,
                response=f" {words(length)}",
                response_tokens=length + 1,
                finish_reason="stop",
                teacher="random",
            )
        )
    return problems, traces


def save_words(directory: Path, vocab_size: int, context: int) -> None:
    """A tokenizer whose token `i` is the word `wi`; the first three are special."""
    vocabulary = {END: 0, PAD: 1, UNKNOWN: 2} | {f"w{i}": i for i in range(FIRST_WORD, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (END, PAD, UNKNOWN)])
    write_text(directory / "tokenizer.json", tokenizer.to_str())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "model_max_length": context,
    }
    write_json(directory / "tokenizer_config.json", config)
