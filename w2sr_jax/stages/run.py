"""Run a whole experiment: its stages in order, each finished one reused, each killed one resumed.

--config names a file of configs/experiments/ whose get_config() returns an ExperimentConfig. Every node of it runs
in WORKDIR/NODE_NAME. A node is done when its done.json holds the hash of its config and of its inputs' content;
the same command therefore starts again where it stopped, and a changed config redoes only what depends on it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import runtime
from w2sr_jax.core.config import to_dict, validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import read_json, sha256_file, write_json
from w2sr_jax.core.references import map_strings, references, split_reference
from w2sr_jax.core.stage_config import ExperimentConfig, Node
from w2sr_jax.grading.pool import shared_workers

CONFIG = ExperimentConfig

# Written for people or for resuming: not what a later stage reads.
NOT_OUTPUT = (
    *("done.json", "config.json", ".lock", "clock.json"),
    *("metrics.jsonl", "tensorboard", "profile", "checkpoints"),
)
INPUT_SUFFIXES = (".jsonl", ".json", ".safetensors")


def main(config: ExperimentConfig, workdir: str) -> dict[str, str]:
    """Runs every node of the experiment.

    Returns:
        {node name: "done" | "reused"}, in the order of execution.

    Raises:
        UsageError: a node that names an unknown node, a stage that does not exist, or a cycle.
    """
    validate(config)
    root, start = Path(workdir), time.monotonic()
    nodes = in_order(config.nodes())
    for node in nodes:
        validate(node.config, node.name)
    names = {node.name for node in nodes}
    outputs: dict[str, str] = {}
    status: dict[str, str] = {}
    with shared_workers():  # most stages grade, and each would start processes of its own
        for number, node in enumerate(nodes, 1):
            key, place = node_key(node, outputs), root / node.name
            if (place / "done.json").exists() and read_json(place / "done.json")["key"] == key:
                status[node.name] = "reused"
            else:
                logging.info("[%d/%d] %s (%s)", number, len(nodes), node.name, node.stage)
                run_node(node, resolve(node.config, root, names), place, key)
                status[node.name] = "done"
            outputs[node.name] = key + read_json(place / "done.json")["outputs"]
    reused = sum(s == "reused" for s in status.values())
    logging.info("%d stages, %d of them reused, %.0f s", len(nodes), reused, time.monotonic() - start)
    if nodes and nodes[-1].stage == "report":
        if status[nodes[-1].name] == "reused":  # otherwise the stage has just printed it
            print((root / nodes[-1].name / "report.md").read_text(encoding="utf-8"))
        print(f"The page with plots: {root / nodes[-1].name / 'report.html'}")
    return status


def run_node(node: Node, config: Any, place: Path, key: str) -> None:
    """Runs one stage in its workdir, which is done once it holds done.json.

    Args:
        config: the node's, with its references turned into paths.
    """
    _set_aside(place, key)
    write_json(place / "key.json", {"key": key})
    runtime.run(_stage(node.stage).main, config, place)
    write_json(place / "done.json", {"key": key, "stage": node.stage, "outputs": _hash_outputs(place)})


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

    def external(value: str) -> str:
        # A string that names an existing file or model directory is an input from outside the experiment.
        if value and len(value) < 1024 and not value.startswith("@") and Path(value).exists():
            digest.update(_hash_path(Path(value)).encode())
        return value

    map_strings(to_dict(node.config), external)
    return digest.hexdigest()


def _hash_path(path: Path) -> str:
    return sha256_file(path) if path.is_file() else _hash_outputs(path)


def _hash_outputs(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        if path.is_file() and path.suffix in INPUT_SUFFIXES and not set(parts) & set(NOT_OUTPUT) and _is_content(path):
            digest.update(f"{'/'.join(parts)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _is_content(path: Path) -> bool:
    # Ledgers, results and identities hold times of day: what they say of the model follows from the other files.
    return path.name not in ("ledger.jsonl", "key.json", "result.json", "manifest.json", "identity.json")


def _set_aside(directory: Path, key: str) -> None:
    """Keeps a directory that another config or other inputs made, out of the way of the new run."""
    marker = directory / "key.json"
    if marker.exists() and read_json(marker)["key"] != key:
        old = directory.with_name(f"{directory.name}.old-{re.sub('[^0-9]', '', str(time.time()))}")
        directory.rename(old)
        logging.info("%s was made with another config or other inputs: kept as %s", directory.name, old.name)


def _stage(name: str) -> Any:
    if not re.fullmatch(r"[a-z_]+", name):
        raise UsageError(f"experiment: no stage {name!r}")
    try:
        return importlib.import_module(f"w2sr_jax.stages.{name}")
    except ModuleNotFoundError:
        raise UsageError(f"experiment: no stage {name!r}") from None


if __name__ == "__main__":
    runtime.main_exit("run", main, CONFIG)
