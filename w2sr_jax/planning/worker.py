"""The process that compiles one step for one slice: a JSON request on stdin, one line of JSON on stdout.

    python -m w2sr_jax.planning.worker < request.json

A program that does not fit is an answer (`out_of_memory`), like a mesh that the model cannot be split over
(`refused`). Everything else that goes wrong ends the process, and its parent reports the last line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

from w2sr_jax.core.compiler_options import compiler_options
from w2sr_jax.core.config import MeshConfig, OptimizerConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.core.topology import parse_topology
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.planning.flops import traced_flops
from w2sr_jax.planning.hlo import read_program
from w2sr_jax.planning.steps import Traced, decode_step, devices_of, sft_step


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compiles what the request names.

    Args:
        request: topology (a name), model (a decoded config.json), mesh, train, optimizer (configs as dicts), rows,
            length, step ("train" or "decode"; of a decode step the length is that of its cache), and perhaps hlo, the
            file that takes the compiled program's text.
    """
    try:
        topology = parse_topology(request["topology"])
        mesh = make_mesh(MeshConfig(**request["mesh"]), devices_of(topology))
        step = _trace(request, mesh)
    except W2SRError as error:
        return {"refused": str(error)}
    found = {
        "versions": versions(),
        "compiler_options": compiler_options(mesh) if request["step"] == "train" else {},
        "argument_bytes": step.argument_bytes,
        "flops": traced_flops(step.traced.jaxpr),
        "kernel_flops": traced_flops(step.traced.jaxpr, kernels_only=True),
    }
    compile_started = time.monotonic()
    try:
        compiled = step.traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return found | {"out_of_memory": str(error), "compile_seconds": time.monotonic() - compile_started}
    found["compile_seconds"] = time.monotonic() - compile_started
    stats = compiled.memory_analysis()
    found["memory"] = {
        name: int(getattr(stats, name))
        for name in (
            "argument_size_in_bytes",
            "temp_size_in_bytes",
            "generated_code_size_in_bytes",
            "peak_memory_in_bytes",
            "total_allocation_bytes",
        )
        if hasattr(stats, name)
    }
    text = compiled.as_text()
    if "hlo" in request:
        Path(request["hlo"]).write_text(text)
    program = read_program(text, one_trip=request["step"] == "decode")
    return found | {"program": dataclasses.asdict(program)}


def _trace(request: dict[str, Any], mesh: Any) -> Traced:
    model, rows, length = ModelConfig.from_hf(request["model"]), request["rows"], request["length"]
    train = TrainConfig(**request["train"])
    if request["step"] == "decode":
        return decode_step(model, train.dtype, mesh, rows, length)
    return sft_step(model, OptimizerConfig(**request["optimizer"]), train, mesh, rows, length)


def versions() -> dict[str, str]:
    """What compiled."""
    from importlib import metadata

    found = {"jax": jax.__version__}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["libtpu"] = metadata.version("libtpu")
    return found


def main() -> None:
    """Answers the request on stdin."""
    print(json.dumps(answer(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
