"""Where the seconds of a training loop go: step time, token rates, MFU, waiting, compilation, goodput.

A step's seconds are those between its results and the results of the step before, as the host gets to see them: on a
device that always has work that is the device's own time a step, and nothing here makes the host wait for a device. On
a CPU the loop itself waits for each step before it sends the next one (learn/pace.py). They contain parts that do not
overlap: waiting for data, being blocked by a checkpoint, validation, compilation, and the writing of a profile.

Rates and MFU are of the step without the last four. Productive is a step without compilation, checkpoints and
profiles, and without that waiting for data during which the device had nothing to do. Goodput is the productive
seconds of all steps over the seconds since the run was first started: start-up, restarts, the time between attempts,
steps that had to be done again and exports count as lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from w2sr_jax.core.cost import StageClock
from w2sr_jax.core.memory import memory_metrics
from w2sr_jax.core.topology import peak_flops_per_s

PARTS = ("data_wait_seconds", "checkpoint_seconds", "validation_seconds", "profile_seconds")
RARE = ("validation_seconds", "profile_seconds")  # in a row only where they are not 0
SUMMED = ("step_seconds", "productive_seconds", "compile_seconds", *PARTS)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a step did, on all chips together."""

    tokens: int  # padding excluded
    padded_tokens: int  # padding included
    flops: float  # of the model (core/cost.py), for the tokens without padding


class StepMeter:
    """Measures the steps of one loop; see the module's text for what its numbers mean.

    Args:
        clock: of the stage.
        mesh: that the steps run on. All CPU devices of a process share its cores, and count as one chip.
        peak_tflops: of one chip, for MFU; 0 takes the known bfloat16 peak of its kind, or leaves MFU out.
        earlier: rows of metrics.jsonl that stay valid, written by this process before or by earlier attempts.
    """

    def __init__(
        self, clock: StageClock, mesh: Mesh | None, peak_tflops: float, earlier: Sequence[Mapping[str, float]] = ()
    ):
        device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
        self.chips = jax.process_count() if device.platform == "cpu" else 1 if mesh is None else mesh.size
        self.peak = peak_tflops * 1e12 or peak_flops_per_s(device.device_kind)
        self._clock, self._steps = clock, len(earlier)
        self._sums = {name: sum(row.get(name) or 0.0 for row in earlier) for name in SUMMED}
        self._inside = False
        self._rated = self._tokens = self._mfu_seconds = 0.0
        for row in earlier:
            if row.get("tokens_per_second"):
                self._rated += _rated(row)
                self._tokens += row["tokens_per_second"] * _rated(row)
                self._mfu_seconds += (row.get("mfu") or 0.0) * _rated(row)
        self._begin()

    @contextlib.contextmanager
    def part(self, name: str, running: Any = None) -> Iterator[None]:
        """Counts the body's seconds, less those of compilation in it, as `name` of PARTS; parts within it are its own.

        Args:
            running: results of the step that the device works on; waiting for data is lost only if they are there.
        """
        if self._inside:
            yield
            return
        start, compile_start, self._inside = time.monotonic(), self._clock.compile_seconds, True
        try:
            yield
        finally:
            self._inside = False
            compiling = self._clock.compile_seconds - compile_start
            spent = max(0.0, time.monotonic() - start - compiling)
            self._parts[name] += spent
            hidden = running is not None and not all(x.is_ready() for x in jax.tree.leaves(running))
            if name != "validation_seconds" and not (name == "data_wait_seconds" and hidden):
                self._lost += spent

    def row(self, work: Work) -> dict[str, float]:
        """Ends a step: what metrics.jsonl says of it. The first step begins when the meter is made."""
        now = time.monotonic()
        row = {"step_seconds": now - self._start, **self._parts}
        for name in RARE:
            if not row[name]:
                del row[name]
        row["compile_seconds"] = self._clock.compile_seconds - self._compile_start
        row["compiles"] = self._clock.programs - self._programs_start
        row["productive_seconds"] = max(0.0, row["step_seconds"] - row["compile_seconds"] - self._lost)
        row["padding"] = 1.0 - work.tokens / work.padded_tokens
        if (seconds := _rated(row)) > 0:
            row["tokens_per_second"] = work.tokens / seconds
            row["tokens_per_second_per_chip"] = work.tokens / seconds / self.chips
            if self.peak:
                row["mfu"] = work.flops / seconds / self.chips / self.peak
                row["mfu_peak_tflops"] = self.peak / 1e12
                self._mfu_seconds += work.flops / self.chips / self.peak
            self._tokens += work.tokens
            self._rated += seconds
        self._add(row)
        self._steps += 1
        row["goodput"] = self._goodput()
        self._begin()
        return row | memory_metrics()

    def summary(self) -> str:
        """One line on all steps, those of earlier attempts included; shares are of the time since the first start."""
        whole = self._clock.seconds_since_start
        rest = dict.fromkeys(("step_seconds", "compile_seconds"), 0.0) | self._parts  # of the last save, mostly
        sums = {name: self._sums[name] + rest.get(name, 0.0) for name in SUMMED}
        rate = f"{self._tokens / self._rated / self.chips:.4g} tokens/s/chip" if self._rated else "no rate"
        mfu = "no MFU (no peak is known: --config.peak_tflops)"
        if self.peak and self._rated:
            mfu = f"MFU {self._mfu_seconds / self._rated:.1%} of {self.peak / 1e12:g} TFLOP/s"
        shares = ", ".join(
            f"{words} {sums[name] / whole:.1%}"
            for name, words in (
                ("data_wait_seconds", "data wait"),
                ("checkpoint_seconds", "checkpoints"),
                ("compile_seconds", "compilation"),
            )
        )
        good = f"goodput {self._goodput():.1%} of {whole:.0f} s"
        return f"{self._steps} steps on {self.chips} chip{'s' * (self.chips > 1)}, {rate}, {mfu}, {shares}, {good}"

    def _begin(self) -> None:
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._lost = 0.0
        self._start, self._compile_start = time.monotonic(), self._clock.compile_seconds
        self._programs_start = self._clock.programs

    def _add(self, row: Mapping[str, float]) -> None:
        for name in SUMMED:
            self._sums[name] += row.get(name) or 0.0

    def _goodput(self) -> float:
        whole = self._clock.seconds_since_start
        return min(1.0, self._sums["productive_seconds"] / whole) if whole > 0 else 0.0


def _rated(row: Mapping[str, float]) -> float:
    """The seconds of a row that rates are of."""
    return (row.get("step_seconds") or 0.0) - sum(
        row.get(name) or 0.0 for name in ("compile_seconds", *PARTS) if name != "data_wait_seconds"
    )
