"""The sizes of a batch's arrays: prompt columns, cache slots, rows. Every size is a compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


def prompt_bucket(length: int) -> int:
    """The padded width of prompts up to `length` tokens: a power of two or 1.5 times one, at least 16."""
    return _bucket(length, 16)


def fine_prompt_bucket(length: int) -> int:
    """The same with 1.25 and 1.75 times a power of two from 64 on."""
    width = prompt_bucket(length)
    finer = width - max(16, 1 << (width - 1).bit_length() >> 3)
    return finer if width > 64 and length <= finer else width


def cache_bucket(length: int) -> int:
    """Slots for `length` tokens, in the same steps from 32 on."""
    return _bucket(length, 32)


def _bucket(length: int, least: int) -> int:
    power = max(least, 1 << max(0, length - 1).bit_length())
    return power * 3 // 4 if power > least and length <= power * 3 // 4 else power


def next_on_cpu(rows: int) -> int:
    """The next smaller batch: powers of two, and 24, 48, 96 ..."""
    power = 1 << max(0, rows - 1).bit_length() >> 1
    return power * 3 // 2 if rows > power * 3 // 2 >= 16 else power


def next_elsewhere(rows: int) -> int:
    """A quarter, or 0 where a step costs what the weights do anyway."""
    return rows // 4 if rows >= 32 else 0


class Sizes(NamedTuple):
    """Which arrays a batch goes through; every size is a compilation."""

    prompts: Callable[[int], int]  # tokens of the longest -> columns of all
    cache: Callable[[int], int]  # slots in use -> of the cache that it goes on with, if its completions need as many
    smaller: Callable[[int], int]  # rows -> of the batch in which the last ones go on; 0 is none


# A step costs what the arrays hold, and elsewhere what the weights do.
ON_CPU = Sizes(fine_prompt_bucket, lambda slots: max(128, cache_bucket(slots + 1)), next_on_cpu)
ELSEWHERE = Sizes(prompt_bucket, lambda slots: max(512, 2 * slots), next_elsewhere)
