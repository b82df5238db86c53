"""Rows of a Hugging Face dataset, straight from its JSON, JSONL or Parquet files: no code of the dataset is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import iter_rows
from w2sr_jax.core.records import RecordError

SUFFIXES = (".jsonl", ".json", ".parquet")


def fetch_rows(source: str) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, row) over the files of one split, in the order of their names.

    Args:
        source: `hf:DATASET_ID[:SPLIT]`; SPLIT (default "train") is a folder, a file name, or the part of a file name
            before "-00000-of-..."; "folder/train" works where a dataset has several configurations.

    Raises:
        UsageError: the source is misspelt, or no file belongs to the split.
        W2SRError: the hub cannot be reached, or a file cannot be read with what is installed.
    """
    dataset, _, split = source.removeprefix("hf:").partition(":")
    if dataset.count("/") != 1:
        raise UsageError(f"{source}: expected hf:OWNER/NAME[:SPLIT]")
    # Its offline switch and its request errors have several base classes, so any failure of these calls is
    # reported as what it is to the user: the hub did not answer with the file.
    try:
        from huggingface_hub import HfApi, hf_hub_download

        names = split_files(HfApi().list_repo_files(dataset, repo_type="dataset"), split or "train")
        paths = [Path(hf_hub_download(dataset, name, repo_type="dataset")) for name in names]
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise W2SRError(
            f"{source}: cannot be fetched from the hub ({type(error).__name__}: {reason}); "
            "offline, download the file elsewhere and give its path"
        ) from None
    if not paths:
        raise UsageError(f"{source}: no JSON, JSONL or Parquet file of split {split or 'train'!r} in this dataset")
    number = 0
    for path in paths:
        for row in read_file(path):
            number += 1
            yield number, row


def split_files(names: list[str], split: str) -> list[str]:
    """The data files of a split, sorted: `split.jsonl`, `data/split-00000-of-00002.parquet`, `split/x.parquet`."""

    def belongs(name: str) -> bool:
        stem = name[: name.rfind(".")]
        whole = stem.split("-0")[0]
        return whole == split or whole.endswith(f"/{split}") or f"/{split}/" in f"/{name}"

    return sorted(name for name in names if name.endswith(SUFFIXES) and belongs(name))


def read_file(path: Path) -> list[Any]:
    """The rows of one JSON array, JSONL or Parquet file."""
    if path.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError:
            raise W2SRError(
                f"{path.name}: reading Parquet needs pyarrow: `pip install pyarrow`, or use a JSONL copy"
            ) from None
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".json" and path.read_text(encoding="utf-8").lstrip().startswith("["):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecordError(f"{path}: not JSON: {error}") from None
    return [row for _, row in iter_rows(path)]
