"""The text that base models are pretrained on: problems answered directly, with care, or sloppily, in packed rows."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator

from tokenizers import Tokenizer

from w2sr_jax.data.chat import Example
from w2sr_jax.data.pack import Batch, first_fit, pack_rows
from w2sr_jax.micro.config import CorpusConfig
from w2sr_jax.micro.task import Chain, Task, stream
from w2sr_jax.micro.tokenizer import END, PAD, VOCABULARY

PACKED_TOGETHER = 512  # documents; enough for rows with next to no padding


def documents(
    config: CorpusConfig, seed: int, held_out: Container[str], task: type[Task] = Chain
) -> Iterator[tuple[str, str]]:
    """Endless (prompt, response) pairs.

    Args:
        held_out: texts of problems that never occur.
        task: what they are about. Lengths beyond its longest problem are left out.
    """
    rng = random.Random(f"micro corpus {seed}")
    direct = stream(rng, config.direct_lengths[: task.max_operations], held_out, task)
    worked = stream(rng, config.worked_lengths[: task.max_operations], held_out, task)
    while True:
        if rng.random() < config.direct_share:
            chain = next(direct)
            yield chain.text, chain.direct()
        else:
            chain = next(worked)
            yield chain.text, chain.worked(in_head=1 if rng.random() < config.careful_share else 2)


def batches(
    config: CorpusConfig,
    rows_a_step: int,
    tokenizer: Tokenizer,
    seed: int,
    held_out: Container[str],
    task: type[Task] = Chain,
) -> Iterator[Batch]:
    """Endless numpy batches [rows_a_step, config.row_length] with the loss on responses and their end of text."""
    source = documents(config, seed, held_out, task)
    end, pad = VOCABULARY[END], VOCABULARY[PAD]
    examples: list[Example] = []
    rows: list[list[int]] = []
    while True:
        if len(rows) < rows_a_step:
            # What is left over of the last round goes into this one.
            examples = [examples[index] for row in rows for index in row]
            pairs = [next(source) for _ in range(PACKED_TOGETHER)]
            prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs])
            responses = tokenizer.encode_batch([response for _, response in pairs])
            examples += [Example([*p.ids, *r.ids, end], len(p.ids)) for p, r in zip(prompts, responses)]
            rows = first_fit([len(example.tokens) for example in examples], config.row_length)
            random.Random(len(examples)).shuffle(rows)
        chosen, rows = rows[:rows_a_step], rows[rows_a_step:]
        yield pack_rows(examples, chosen, config.row_length, pad)
