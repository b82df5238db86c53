"""A model's config.json and nothing else of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from w2sr_jax.model.config import CheckpointError
from w2sr_jax.model.tensors import read_object


def model_facts(source: str) -> dict[str, Any]:
    """The decoded config.json of a file, a Hugging Face directory, a training workdir or a hub id.

    Of a hub id that one file is fetched, and kept where the hub's own cache is.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(source)
    for place in (path / "export" / "config.json", path / "config.json"):
        if place.exists():
            return read_object(place)
    if path.is_file():
        return read_object(path)
    if path.is_dir() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source):
        raise CheckpointError(f"config.model: {source}: no config.json there, and no hub id either")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return read_object(Path(hf_hub_download(source, "config.json")))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"config.model: {source}: no such directory, and the hub does not give its config.json "
            f"({type(error).__name__})"
        ) from None
