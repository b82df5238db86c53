"""Compile the SFT step, and the decode step, for a TPU slice or a CPU mesh that need not be there.

    w2sr plan --config=configs/plan.py:qwen2.5-7b --config.topology=v6e:4x4 --workdir=runs/plan

Prints and writes to plan.json: whether it fits and what would make it fit, HBM a chip by kind, FLOPs against the
model's, collectives by kind and bytes, an estimated step time with what it rests on, tokens per second and cost. The
programs are those that `w2sr sft` and the JAX engine run; the model is its config.json alone. Compiling for TPUs takes
libtpu (`make setup EXTRAS=plan`) and minutes, in a process of its own.
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import DataConfig, PriceConfig, to_dict, validate
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import write_json
from w2sr_jax.core.tool_config import PlanConfig
from w2sr_jax.core.topology import Topology, parse_topology
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.model.params import param_specs
from w2sr_jax.planning import outcome, table
from w2sr_jax.planning.child import compile_step
from w2sr_jax.planning.facts import model_facts
from w2sr_jax.planning.search import STATE_BYTES, Shape, cheapest, explore, meshes

CONFIG = PlanConfig


def main(config: PlanConfig, workdir: str) -> dict[str, Any]:
    """Compiles, prints and writes plan.json.

    Returns:
        What plan.json holds. With `config.suggest`, the plan is that of the cheapest shape that fits.

    Raises:
        UsageError: topology, mesh, microbatch and model do not go together.
        W2SRError: the compiler is missing, or failed.
    """
    validate(config)
    planner = Planner(config, Path(workdir))
    with cost.StageClock(workdir, "plan", device_kind="cpu") as clock:
        tried: list[tuple[Shape, dict[str, Any]]] = []
        if config.suggest:
            tried = planner.search()
        best = cheapest(tried) or (tried[0] if tried else None)
        shape, plan = best or (planner.asked(), planner.train(planner.asked()))
        plan["tried"] = [
            {"flags": planner.sft_flags(one)}
            | {key: found[key] for key in ("fits", "peak_bytes_per_chip", "hbm_bytes_per_chip", "peak_is_lower_bound")}
            | {"step_seconds_estimate": found["step_seconds_estimate"]}
            for one, found in tried
        ]
        if config.suggest and not plan["fits"]:
            plan["advice"].append(f"none of the {len(tried)} shapes that were tried fits; take a larger slice")
        elif not plan["fits"]:
            plan["advice"].append("--config.suggest=True looks for a mesh, a microbatch and a remat policy that fit")
        if config.decode_rows:
            plan["decode"] = planner.decode(shape)
        write_json(Path(workdir) / "plan.json", plan)
        cost.append_ledger(workdir, clock.line())
    print(table.render(plan))
    return plan


class Planner:
    """What stays the same over the shapes that are tried."""

    def __init__(self, config: PlanConfig, workdir: Path):
        self.config, self.workdir = config, workdir
        self.topology: Topology = parse_topology(config.topology)
        self.facts = model_facts(config.model)
        self.model = ModelConfig.from_hf(self.facts, config.model)
        self.name = re.sub(r"(/export)?(/config)?\.json$", "", config.model).split("/")[-1]
        self.sizes = flops_shape(self.model)
        outer, layer = param_specs(self.model)
        self.num_params = sum(math.prod(spec.shape) for spec in (*outer.values(), *layer.values()))
        chip = self.topology.chip
        self.price: PriceConfig | None = config.prices.get(chip.name) if chip else None
        if config.price.usd_per_device_hour:
            self.price = config.price

    def asked(self) -> Shape:
        """The shape that the config asks for.

        Raises:
            UsageError: mesh or batch do not divide the slice.
        """
        config, devices = self.config, self.topology.devices
        sizes = {"tensor": config.mesh.tensor, "data": config.mesh.data, "fsdp": config.mesh.fsdp}
        fixed = math.prod(size for size in sizes.values() if size != -1)
        sizes = {axis: devices // fixed if size == -1 else size for axis, size in sizes.items()}
        if math.prod(sizes.values()) != devices:
            asked = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
            raise UsageError(f"config.mesh: {asked} does not make the {devices} chips of {self.topology.name}")
        groups = sizes["data"] * sizes["fsdp"]
        if config.batch_size % groups:
            raise UsageError(
                f"config.batch_size: {config.batch_size} rows do not split over data x fsdp = {groups} groups; "
                "raise config.mesh.tensor"
            )
        rows = config.rows_per_group or config.batch_size // (groups * config.train.grad_accum)
        if rows < 1 or config.batch_size % (groups * rows):
            key = "rows_per_group" if config.rows_per_group else "train.grad_accum"
            raise UsageError(f"config.{key}: {config.batch_size} rows do not split so over {groups} groups")
        return Shape(**sizes, rows=rows, remat=config.train.remat)

    def search(self) -> list[tuple[Shape, dict[str, Any]]]:
        """The shapes that were tried.

        Raises:
            UsageError: no mesh of this slice can hold the state, or split model and batch.
            W2SRError: the compiler failed on every one.
        """
        config, topology = self.config, self.topology
        available = topology.chip.hbm_bytes if topology.chip else outcome.host_memory() // topology.devices
        starts = meshes(self.model, self.num_params, topology.devices, config.batch_size, available)
        if not starts:
            need = math.ceil(STATE_BYTES * self.num_params / available)
            raise UsageError(
                f"config.topology: no mesh of {topology.name} splits {config.batch_size} rows and holds the state of "
                f"{self.num_params / 1e9:.2f}B parameters, which takes {need} chips or more"
            )
        failures: list[W2SRError] = []

        def try_one(shape: Shape) -> dict[str, Any] | None:
            try:
                return self.train(shape)
            except W2SRError as error:  # one shape that the compiler dies of is no reason to give up the others
                logging.warning("%s", error)
                failures.append(error)
                return None

        found = list(
            explore(starts, self.model, config.batch_size, config.max_length, config.suggest_compiles, try_one)
        )
        if not found:
            raise failures[0]
        return found

    def train(self, shape: Shape) -> dict[str, Any]:
        """The plan of one SFT step."""
        config = self.config
        accum = config.batch_size // (shape.data * shape.fsdp * shape.rows)
        train = dataclasses.replace(config.train, grad_accum=accum, remat=shape.remat)
        found = self._compile("train", shape, config.batch_size, config.max_length, to_dict(train))
        tokens = config.batch_size * config.max_length
        model_flops = cost.train_flops(tokens=tokens, context=config.max_length, **self.sizes)
        plan = self._plan(found, tokens, model_flops, f"The SFT step of {self.name}")
        plan |= {"train": to_dict(train), "flags": self.sft_flags(shape)}
        plan["six_n_flops_per_step"] = cost.train_flops(self.sizes["num_params"], tokens)
        plan["mesh"] = {axis: getattr(shape, axis) for axis in ("data", "fsdp", "tensor")}
        state = STATE_BYTES * self.num_params * shape.data
        plan["advice"] = outcome.advice(plan, state, self.topology.devices, shape.rows)
        return plan

    def sft_flags(self, shape: Shape) -> str:
        """What makes `w2sr sft` take the step that was compiled: the shape, and what else is not sft's default."""
        config = self.config
        rows = dataclasses.replace(DataConfig(), batch_size=config.batch_size, max_length=config.max_length)
        own = {"grad_accum", "remat"}  # the shape has them
        others = [
            f"--config.{part}.{field.name}={value}"
            for part, asked in (("data", rows), ("train", config.train), ("optimizer", config.optimizer))
            for field in dataclasses.fields(asked)
            if (value := getattr(asked, field.name)) != getattr(type(asked)(), field.name) and field.name not in own
        ]
        return " ".join([shape.flags(config.batch_size), *others])

    def decode(self, shape: Shape) -> dict[str, Any]:
        """The plan of one decode step on the same mesh, one new token for every row: a trip of the decode loop."""
        config, groups = self.config, shape.data * shape.fsdp
        rows = math.ceil(config.decode_rows / groups) * groups
        found = self._compile("decode", shape, rows, config.decode_slots, to_dict(config.train))
        flops = cost.decode_flops(tokens=rows, context=config.decode_slots, **self.sizes)
        what = f"One trip of the decode loop of {self.name}: a token for each of {rows} rows, split over data and fsdp"
        return self._plan(found, rows, flops, what) | {"rows": rows, "slots": config.decode_slots}

    def _plan(self, found: dict[str, Any], tokens: int, model_flops: float, what: str) -> dict[str, Any]:
        plan = {"model": self.name, "topology": self.topology.name, "chips": self.topology.devices}
        plan |= outcome.plan_of(self.topology, found, tokens, model_flops, self.price)
        return plan | {"basis": outcome.basis(self.topology, found, what)}

    def _compile(self, step: str, shape: Shape, rows: int, length: int, train: dict[str, Any]) -> dict[str, Any]:
        request = {
            "step": step,
            "topology": self.topology.name,
            "model": self.facts,
            "mesh": {"data": shape.data, "fsdp": shape.fsdp, "tensor": shape.tensor},
            "train": train,
            "optimizer": to_dict(self.config.optimizer),
            "rows": rows,
            "length": length,
        }
        config = self.config
        return compile_step(
            request, self.topology, config.compile_limit_s, self.workdir / "compiled", save_hlo=config.save_hlo
        )


if __name__ == "__main__":
    runtime.main_exit("plan", main, CONFIG)
