"""Rows of a Hugging Face dataset, straight from its JSON, JSONL or Parquet files: no code of the dataset is run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from absl import logging

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import iter_rows
from w2sr_jax.core.records import RecordError

SUFFIXES = (".jsonl", ".parquet", ".json")  # the first that a folder has is read: .json may be notes on the others


def fetch_rows(source: str) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, row) over the files of one split, in the order of their names.

    Args:
        source: `hf:DATASET_ID[:SPLIT]`; SPLIT (default "train") is a folder, a file name, or the part of a file name
            before "-00000-of-..."; "folder/train" works where a dataset has several configurations.

    Raises:
        UsageError: the source is misspelt, or no file belongs to the split, or files of several configurations do.
        W2SRError: the hub cannot be reached, or a file cannot be read with what is installed.
    """
    dataset, _, split = source.removeprefix("hf:").partition(":")
    if dataset.count("/") != 1:
        raise UsageError(f"{source}: expected hf:OWNER/NAME[:SPLIT]")
    split = split or "train"
    with _answering(source):
        from huggingface_hub import HfApi, hf_hub_download

        names = HfApi().list_repo_files(dataset, repo_type="dataset")
    folders = split_files(names, split)
    if not folders:
        raise UsageError(f"{source}: no JSON, JSONL or Parquet file of split {split!r} in this dataset")
    if len(folders) > 1:
        choices = ", ".join(f"hf:{dataset}:{folder}/{split}" for folder in folders)
        raise UsageError(f"{source}: several folders have this split; name one of {choices}")
    with _answering(source):
        paths = [Path(hf_hub_download(dataset, name, repo_type="dataset")) for name in next(iter(folders.values()))]
    number = 0
    for path in paths:
        for row in read_file(path):
            number += 1
            yield number, row


@contextlib.contextmanager
def _answering(source: str) -> Iterator[None]:
    """The hub's offline switch and its request errors have several base classes, so any failure of a call is reported
    as what it is to the user: the hub did not answer with the file."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise W2SRError(
            f"{source}: cannot be fetched from the hub ({type(error).__name__}: {reason}); "
            "offline, download the file elsewhere and give its path"
        ) from None


def split_files(names: list[str], split: str) -> dict[str, list[str]]:
    """{folder: its data files of a split, sorted}; a split that is named in full is one folder, "".

    Of a folder with files of several kinds those of one are taken: copies of a split would be read twice.

    `split.jsonl` and `split/x.parquet` are of folder "", `data/split-00000-of-00002.parquet` is of "data".
    """
    found: dict[str, list[str]] = {}
    for name in sorted(name for name in names if name.endswith(SUFFIXES)):
        path = PurePosixPath(name)
        whole = f"/{path.with_name(path.stem.split('-0')[0])}/"
        if (place := whole.find(f"/{split}/")) >= 0:
            found.setdefault(whole[1:place], []).append(name)
    found = {"": found[""]} if "" in found else found
    return {folder: _of_one_kind(files) for folder, files in found.items()}


def _of_one_kind(names: list[str]) -> list[str]:
    kinds = {suffix: [name for name in names if name.endswith(suffix)] for suffix in SUFFIXES}
    taken = next(files for files in kinds.values() if files)
    if left := [name for name in names if name not in taken]:
        logging.warning("%s: not read beside %s", ", ".join(left), ", ".join(taken))
    return taken


def read_file(path: Path) -> list[Any]:
    """The rows of one JSON array, JSONL or Parquet file."""
    if path.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError:
            raise W2SRError(
                f"{path.name}: reading Parquet needs pyarrow: run `make setup EXTRAS=hub`, or use a JSONL copy"
            ) from None
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".json" and path.read_text(encoding="utf-8").lstrip().startswith("["):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecordError(f"{path}: not JSON: {error}") from None
    return [row for _, row in iter_rows(path)]
