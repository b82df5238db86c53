"""Run a whole experiment: its stages in order, each finished one reused, each killed one resumed.

--config names a file of configs/experiments/ whose get_config() returns an ExperimentConfig. Every node of it runs
in WORKDIR/NODE_NAME. A node is done when its done.json holds the hash of its config and of its inputs' content;
the same command therefore starts again where it stopped, and a changed config redoes only what depends on it. The
workdir may be moved meanwhile.

Of several processes each walks through the nodes and runs each stage as if it had been started by itself; process 0
alone decides what is done already, so that all run the same stages.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import preemption, processes, runtime
from w2sr_jax.core.config import to_dict, validate
from w2sr_jax.core.errors import Preempted, UsageError
from w2sr_jax.core.files import read_json, sha256_file, write_json
from w2sr_jax.core.references import inputs, map_strings, references, split_reference
from w2sr_jax.core.stage_config import ExperimentConfig, Node
from w2sr_jax.grading.pool import shared_workers

CONFIG = ExperimentConfig

# What lies in a stage's workdir for people or for resuming: not what a later stage reads. Ledgers and results hold
# times of day: what they say of the model follows from the other files.
NOT_OUTPUT = (
    *(
        "done.json",
        "key.json",
        "config.json",
        "clock.json",
        "ledger.jsonl",
        "result.json",
        "manifest.json",
        "identity.json",
    ),
    *("metrics.jsonl", "tensorboard", "profile", "checkpoints"),
)
INPUT_SUFFIXES = (".jsonl", ".json", ".safetensors")
INPUT_NAMES = ("chat_template.jinja", "merges.txt", "tokenizer.model")  # of a model directory, beside those


def main(config: ExperimentConfig, workdir: str) -> dict[str, str]:
    """Runs every node of the experiment.

    Returns:
        {node name: "done" | "reused"}, in the order of execution.

    Raises:
        UsageError: a node that names an unknown node, a stage that does not exist or takes another config, or a cycle;
            or one that several processes cannot run, before any of them runs.
        Preempted: SIGTERM came during the last step of a training stage, which is done, and others are not.
    """
    validate(config)
    root, start = Path(workdir), time.monotonic()
    nodes = in_order(config.nodes())
    for node in nodes:
        validate(node.config, node.name)
    if processes.is_writer():
        waiting = [node for node in nodes if not (root / node.name / "done.json").exists()]
        for node in waiting:  # of the others nothing need be imported
            stage_of(node)
        check_processes(waiting)  # once they are done, several processes may go on from there
    names = {node.name for node in nodes}
    outputs: dict[str, str] = {}
    status: dict[str, str] = {}
    with shared_workers():  # most stages grade, and each would start processes of its own
        for number, node in enumerate(nodes, 1):
            place = root / node.name
            key, done = look_up(node, place, outputs)
            if done:
                status[node.name] = "reused"
            else:
                logging.info("[%d/%d] %s (%s)", number, len(nodes), node.name, node.stage)
                run_node(node, resolve(node.config, root, names), place, key)
                status[node.name] = "done"
            if processes.is_writer():  # the others do not look at it
                outputs[node.name] = key + read_json(place / "done.json")["outputs"]
    reused = sum(s == "reused" for s in status.values())
    logging.info("%d stages, %d of them reused, %.0f s", len(nodes), reused, time.monotonic() - start)
    if nodes and nodes[-1].stage == "report" and processes.is_writer():
        if status[nodes[-1].name] == "reused":  # otherwise the stage has just printed it
            print((root / nodes[-1].name / "report.md").read_text(encoding="utf-8"))
        print(f"The page with plots: {root / nodes[-1].name / 'report.html'}")
    return status


def look_up(node: Node, place: Path, outputs: dict[str, str]) -> tuple[str, bool]:
    """(the node's key, whether it is done): process 0 looks, and tells the others.

    Args:
        outputs: see `node_key`; process 0 has them.

    Raises:
        Preempted: it is not done, and some process was told to stop.
    """
    found: tuple[str, bool] | None = None
    if processes.is_writer():
        key, marker = node_key(node, outputs), place / "done.json"
        found = key, marker.exists() and read_json(marker)["key"] == key
    # Process 0 may have a large model to hash.
    said = processes.gather("the next stage", {"found": found, "stop": preemption.pending()}, processes.FOREVER_S)
    key, done = said[0]["found"]
    if not done and any(one["stop"] for one in said):
        raise Preempted
    return key, done


def run_node(node: Node, config: Any, place: Path, key: str) -> None:
    """Runs one stage in its workdir, which is done once it holds done.json.

    Args:
        config: the node's, with its references turned into paths.
    """
    check_processes([node])
    if processes.is_writer():
        _set_aside(place, key)
        _mark(place, key, config)
    runtime.run(stage_of(node).main, config, place, node.stage)
    if processes.is_writer():
        write_json(place / "done.json", {"key": key, "stage": node.stage, "outputs": _hash_outputs(place)})


def stage_of(node: Node) -> Any:
    """The module of the node's stage.

    Raises:
        UsageError: there is none, or it takes another config.
    """
    name = f"w2sr_jax.stages.{node.stage}"
    if not re.fullmatch(r"[a-z_]+", node.stage) or importlib.util.find_spec(name) is None:
        raise UsageError(f"experiment: node {node.name}: no stage {node.stage!r}")
    stage = importlib.import_module(name)
    if not isinstance(node.config, stage.CONFIG):
        given, taken = type(node.config).__name__, stage.CONFIG.__name__
        raise UsageError(f"experiment: node {node.name}: {node.stage} takes a {taken}, not a {given}")
    return stage


def check_processes(nodes: Iterable[Node]) -> None:
    """Refuses a stage that is for one process where there are several."""
    for node in nodes:
        if processes.count() > 1 and node.stage in runtime.ONE_PROCESS:
            raise UsageError(
                f"experiment: node {node.name}: {node.stage} runs in one process; start the same command without "
                "--distributed, at least until that node is done"
            )


def in_order(nodes: list[Node]) -> list[Node]:
    """The nodes sorted so that each follows what it reads; otherwise in the given order.

    Raises:
        UsageError: a name used twice, an unknown name or a cycle.
    """
    by_name = {node.name: node for node in nodes}
    if len(by_name) != len(nodes):
        raise UsageError("experiment: two nodes have the same name")
    ordered: dict[str, Node] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name in path:
            raise UsageError(f"experiment: nodes need each other: {' -> '.join((*path, name))}")
        for needed in references(by_name[name].config, by_name):
            visit(needed, (*path, name))
        ordered[name] = by_name[name]

    for node in nodes:
        visit(node.name, ())
    return list(ordered.values())


def resolve(config: Any, root: Path, names: Collection[str]) -> Any:
    """The config with every '@NAME/PATH' turned into a path below `root`."""

    def real(value: str) -> str:
        return str(root / Path(*split_reference(value, names))) if value.startswith("@") else value

    return map_strings(config, real)


def node_key(node: Node, outputs: dict[str, str]) -> str:
    """Hash of a node's stage, config and the content of its inputs.

    Args:
        node: with references unresolved, so that the key does not depend on where the workdir is.
        outputs: {node name: hash of its key and outputs} of the nodes before it.
    """
    digest = hashlib.sha256(json.dumps([node.stage, to_dict(node.config)], sort_keys=True).encode())
    for name in references(node.config, outputs):
        digest.update(outputs[name].encode())

    for text in inputs(node.config):  # what is there under that name is from outside the experiment; the rest are ids
        path = text if os.path.exists(text) else text.partition("=")[2]  # NAME=PATH
        if not text.startswith("@") and os.path.exists(path):
            digest.update(_hash_path(Path(path)).encode())
    return digest.hexdigest()


def _hash_path(path: Path) -> str:
    return sha256_file(path) if path.is_file() else _hash_outputs(path)


def _hash_outputs(directory: Path) -> str:
    """Of a stage's workdir what later stages read, of any other directory (a model) all that may be read."""
    digest = hashlib.sha256()
    ours = any((directory / name).exists() for name in (".lock", "key.json", "clock.json"))  # a stage ran there
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        read = path.suffix in INPUT_SUFFIXES or path.name in INPUT_NAMES
        if path.is_file() and read and not (ours and parts[0] in NOT_OUTPUT):
            digest.update(f"{'/'.join(parts)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _set_aside(directory: Path, key: str) -> None:
    """Keeps a directory that another config or other inputs made, out of the way of the new run."""
    marker = directory / "key.json"
    if marker.exists() and read_json(marker)["key"] != key:
        old = directory.with_name(f"{directory.name}.old-{re.sub('[^0-9]', '', str(time.time()))}")
        directory.rename(old)
        logging.info("%s was made with another config or other inputs: kept as %s", directory.name, old.name)


def _mark(directory: Path, key: str, config: Any) -> None:
    """Writes key.json, and config.json again where the workdir was moved.

    Equal keys are equal configs and inputs: of a config.json under the same key only the paths can be others. One
    without a key is of a stage that somebody started by hand, and `runtime.claim` compares it.
    """
    marker, written = directory / "key.json", directory / "config.json"
    mine = json.loads(json.dumps(to_dict(config)))
    if written.exists() and read_json(written) != mine:
        if not marker.exists():
            return
        write_json(written, mine)
    write_json(marker, {"key": key})


if __name__ == "__main__":
    runtime.main_exit("run", main, CONFIG)
