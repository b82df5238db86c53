"""The six benchmarks of the paper's family, pinned: where each file was published, its sha256, its problems' number.

The files are not part of this repository. `bench:NAME` stands for one wherever problems are named; it is looked for
as NAME.jsonl or NAME/test.jsonl in the folder that the environment variable W2SR_BENCHMARKS names (the repository's own
`data` folder has the second layout), and a file of other content is refused: scores on another revision are scores on
another benchmark. Any other file can still be used by its path.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import sha256_file

PREFIX = "bench:"
FOLDER_VARIABLE = "W2SR_BENCHMARKS"
# All six files were added by one commit and have not changed since.
REPOSITORY = "https://github.com/hkust-nlp/simpleRL-reason"
REVISION = "2204dd1cfb83db4277571af196bdedb73f4d6ea2"
PUBLISHED_AS = "examples/simplelr_math_eval/data/{name}/test.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark file as published at REVISION."""

    name: str
    count: int  # problems
    sha256: str  # of the file's bytes

    def provenance(self) -> dict[str, Any]:
        """What result.json says of it."""
        published = f"{REPOSITORY}/blob/{REVISION}/{PUBLISHED_AS.format(name=self.name)}"
        return {"name": self.name, "count": self.count, "sha256": self.sha256, "published": published}


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("aime24", 30, "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac"),
        Benchmark("amc23", 40, "43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4"),
        Benchmark("math500", 500, "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132"),
        Benchmark("minerva_math", 272, "0e656b430d3a0a1dab6aa853f453ba3805e28e2cabe4fc72486a897cc09d8ba2"),
        Benchmark("olympiadbench", 675, "bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416"),
        Benchmark("gsm8k", 1319, "9f098df7ff4522078d6ccec27a5c38a454790fdb51131bedfaa0e490070d5394"),
    )
}


def locate(source: str) -> Path:
    """The file behind `bench:NAME`.

    Raises:
        UsageError: an unknown name, or no folder or file to find it in.
        W2SRError: the file is not the pinned revision.
    """
    name = source.removeprefix(PREFIX)
    benchmark = BENCHMARKS.get(name)
    if benchmark is None:
        raise UsageError(f"{source}: no such benchmark, only {', '.join(BENCHMARKS)}")
    folder = os.environ.get(FOLDER_VARIABLE, "")
    found = [path for path in (Path(folder, f"{name}.jsonl"), Path(folder, name, "test.jsonl")) if path.is_file()]
    if not folder or not found:
        where = (
            f"{folder} holds neither {name}.jsonl nor {name}/test.jsonl" if folder else f"{FOLDER_VARIABLE} is unset"
        )
        raise UsageError(
            f"{source}: {where}; take {PUBLISHED_AS.format(name=name)} of {REPOSITORY} at {REVISION[:12]} and set "
            f"{FOLDER_VARIABLE} to its folder"
        )
    if (sha256 := sha256_file(found[0])) != benchmark.sha256:
        raise W2SRError(
            f"{found[0]}: sha256 {sha256[:12]} is not that of the pinned {name} ({benchmark.sha256[:12]}); give the "
            f"file's path instead of {source} to use it all the same"
        )
    return found[0]


def display_name(source: str) -> str:
    """What a report calls the problems of `source`: the benchmark's name, or the file's."""
    return source.removeprefix(PREFIX) if source.startswith(PREFIX) else Path(source).stem


def identify(source: str) -> dict[str, Any] | None:
    """Provenance of the registered benchmark in `source` (`bench:NAME`, or a path, by its content), or None."""
    if source.startswith(PREFIX):
        return BENCHMARKS[source.removeprefix(PREFIX)].provenance()
    if not Path(source).is_file():
        return None
    sha256 = sha256_file(source)
    return next((b.provenance() for b in BENCHMARKS.values() if b.sha256 == sha256), None)
