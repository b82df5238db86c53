"""A trainer's weights on their way to vLLM, and the proof that they arrived.

Weights travel as safetensors in a folder, on tmpfs where there is one. After every sync the engine completes a few
fixed prompts, and its logprobs of what it wrote must be the trainer's: a weight that stayed behind would otherwise show
as nothing but slow learning.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.engine.base import Sampling
from w2sr_jax.engine.vllm_engine import VllmEngine

TMPFS = Path("/dev/shm")
PROMPTS, TOKENS = 4, 8  # of the check: cheap beside a rollout
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}  # float32 differs by rounding (1e-5), a stale tensor by whole units

Write = Callable[[Path], None]  # weights -> a Hugging Face directory
Score = Callable[
    [Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[np.ndarray]
]  # prompts, responses -> logprobs


@dataclasses.dataclass(slots=True)
class FileSync:
    """Brings weights to an engine; see `open_sync`."""

    engine: VllmEngine
    folder: Path
    prompts: Sequence[Sequence[int]]
    tolerance: float

    def __call__(self, write: Write, score: Score) -> dict[str, float]:
        """Writes, loads and checks.

        Args:
            write: puts the weights into a directory.
            score: the trainer's own logprobs under these weights.

        Returns:
            metrics: seconds it took, and the largest difference of a logprob.

        Raises:
            W2SRError: the engine could not load them, or does not compute with them.
        """
        began = time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)  # first: tmpfs is memory, which need not hold two models
        write(self.folder)
        self.engine.update_weights(self.folder)
        gap = self.check(score)
        return {"sync_seconds": time.monotonic() - began, "sync_gap": gap}

    def check(self, score: Score) -> float:
        """The largest difference between the engine's logprobs and the trainer's, on every server.

        Raises:
            W2SRError: it is more than the tolerance.
        """
        sampling, worst = Sampling(max_tokens=TOKENS, logprobs=True), 0.0
        for place, groups in self.engine.generate_everywhere(self.prompts, sampling).items():
            completions = [group[0] for group in groups]
            expected = score(self.prompts, [one.token_ids for one in completions])
            found = np.concatenate([np.array(one.logprobs) for one in completions])
            gap = float(np.max(np.abs(found - np.concatenate(expected))))
            if not gap <= self.tolerance:
                raise W2SRError(
                    f"weight sync: vLLM ({place}) does not compute with the trainer's weights: its logprobs are up to "
                    f"{gap:.3g} away, {self.tolerance:g} is allowed (config.sync_tolerance); nothing was learnt from it"
                )
            worst = max(worst, gap)
        return worst

    def close(self) -> None:
        """Frees the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_sync(
    engine: VllmEngine, workdir: str, directory: str, prompts: Sequence[Sequence[int]], tolerance: float
) -> FileSync:
    """A sync whose folder is named after the workdir, so that a killed run's is found again and not left behind.

    Args:
        directory: where the folder goes; empty is tmpfs, or else the directory for temporary files, where only this
            user may look. Servers on other hosts, or of other users, must see it under the same name.
        prompts: token ids; the first few are completed in each check.
    """
    parent = Path(directory) if directory else _private_folder()
    folder = parent / f"w2sr-sync-{zlib.crc32(str(Path(workdir).resolve()).encode()):08x}"
    logging.info("weights go to vLLM through %s", folder)
    return FileSync(engine, folder, prompts[:PROMPTS], tolerance)


def _private_folder() -> Path:
    """This user's own folder among files that everybody can write.

    Raises:
        W2SRError: something of that name is somebody else's, who could put other weights there.
    """
    free = TMPFS.is_dir() and os.access(TMPFS, os.W_OK)
    folder = (TMPFS if free else Path(tempfile.gettempdir())) / f"w2sr-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise W2SRError(f"{folder}: is not a directory of this user alone; remove it, or set config.sync_dir")
    return folder
