"""What the answers in a workdir answer, and whose they are: written before the first one, checked before any other.

A config names files and folders, whose content may change under the same name. Then the answers that are there must not
be mixed with new ones, nor be vouched for by a new manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2sr_jax.core import processes
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_json, sha256_file, sha256_records, write_json
from w2sr_jax.core.records import Problem
from w2sr_jax.data.chat import load_tokenizer, stop_token_ids, template_text
from w2sr_jax.model import hf

FILE = "identity.json"
WORDS = {
    "problems_sha256": "problems",
    "weights": "weights",
    "model_sha256": "config.json or stop tokens",
    "tokenizer_sha256": "tokenizer",
    "template_sha256": "template",
}


def identify(answers: Path, directory: Path, problems: Sequence[Problem], template: str) -> dict[str, str]:
    """Hashes of problems, weights, config, tokenizer and template; all processes call it.

    Weights are read once: while their files keep size and time, the hash in identity.json stands for them.

    Args:
        answers: the file that holds the answers, or whatever stands for them; it may not be there yet.
        directory: of the model that answers.

    Raises:
        W2SRError: the answers are those of something else, or nothing says whose they are.
    """
    told: tuple[dict[str, str], str] = ({}, "")
    if processes.is_writer():  # reading the weights once is enough, and the verdict is one for all
        told = _identify(answers, directory, problems, template)
    found, refusal = processes.gather(f"identity of {answers.parent.name}", told, processes.FOREVER_S)[0]
    if refusal:
        raise W2SRError(refusal)
    return found


def _identify(answers: Path, directory: Path, problems: Sequence[Problem], template: str) -> tuple[dict[str, str], str]:
    """(the hashes, why the answers must not be used or nothing)."""
    path, begun = answers.with_name(FILE), answers.exists() and answers.stat().st_size > 0
    written: dict[str, Any] = read_json(path) if path.exists() else {}
    if begun and not written:
        return {}, f"{answers}: no {FILE} says of which problems and weights it is; use another --workdir"
    stamps = hf.weight_stamps(directory)
    known = written and written["weight_files"] == stamps
    tokenizer = load_tokenizer(directory)
    text = template_text(template, tokenizer)
    model = json.dumps([hf.load_config(directory).to_hf(), sorted(stop_token_ids(directory, tokenizer)[0])])
    found = {
        "problems_sha256": sha256_records(problems),
        "weights": written["weights"] if known else hf.weights_hash(directory),
        "model_sha256": hashlib.sha256(model.encode()).hexdigest(),
        "tokenizer_sha256": sha256_file(directory / "tokenizer.json"),
        "template_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    written.setdefault("model_sha256", found["model_sha256"])  # older workdirs do not say
    if begun and (other := [word for key, word in WORDS.items() if written[key] != found[key]]):
        return {}, (
            f"{answers.parent}: its answers are of other {' and '.join(other)} than what the config names now; "
            "use another --workdir, or put back what was there"
        )
    if written != (now := found | {"weight_files": stamps}):
        write_json(path, now)
    return found, ""
