"""What a stage costs: tokens -> FLOPs, seconds -> device-seconds -> money, and the ledger that keeps it.

The functions are pure and count model FLOPs: a multiply-add is 2, recomputation (remat) is not counted. A stage
measures itself with a `StageClock` and appends one line to its workdir's ledger.jsonl when it is done:

    with StageClock(workdir, "sft") as clock:
        for batch in batches:
            ...
            clock.tick()
        append_ledger(workdir, clock.line(tokens_in=..., tokens_out=..., flops=..., price=config.price))
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from w2sr_jax.core import processes
from w2sr_jax.core.config import PriceConfig
from w2sr_jax.core.files import JsonlAppender, read_json, read_jsonl, write_json
from w2sr_jax.core.records import Record


def attention_flops(tokens: float, *, num_layers: int, num_heads: int, head_dim: int, keys: float) -> float:
    """FLOPs of one forward pass through QK^T and AV for `tokens` queries that attend to `keys` keys each on average."""
    return 4.0 * num_layers * num_heads * head_dim * keys * tokens


def train_flops(
    num_params: int, tokens: float, *, num_layers: int = 0, num_heads: int = 0, head_dim: int = 0, context: float = 0
) -> float:
    """FLOPs of forward and backward: 6N a token, and causal attention, which sees context/2 keys on average.

    Args:
        num_params: parameters that are multiplied: all of them, less an input embedding that is not also the head.
        tokens: trained on, padding excluded.
        context: length of the sequences, in tokens; the shape arguments may stay 0 to leave attention out.
    """
    forward = attention_flops(tokens, num_layers=num_layers, num_heads=num_heads, head_dim=head_dim, keys=context / 2)
    return 6.0 * num_params * tokens + 3.0 * forward


def prefill_flops(
    num_params: int, tokens: float, *, num_layers: int = 0, num_heads: int = 0, head_dim: int = 0, context: float = 0
) -> float:
    """FLOPs of one forward pass over `tokens` tokens of sequences `context` long (prompts, or recomputed logprobs)."""
    forward = attention_flops(tokens, num_layers=num_layers, num_heads=num_heads, head_dim=head_dim, keys=context / 2)
    return 2.0 * num_params * tokens + forward


def decode_flops(
    num_params: int, tokens: float, *, num_layers: int = 0, num_heads: int = 0, head_dim: int = 0, context: float = 0
) -> float:
    """FLOPs of generating `tokens` tokens that attend to `context` tokens on average (prompt + half the response)."""
    forward = attention_flops(tokens, num_layers=num_layers, num_heads=num_heads, head_dim=head_dim, keys=context)
    return 2.0 * num_params * tokens + forward


def answer_flops(
    num_params: int,
    prompts: Sequence[int],
    responses: Sequence[int],
    *,
    num_layers: int = 0,
    num_heads: int = 0,
    head_dim: int = 0,
) -> float:
    """FLOPs of reading prompts and writing a response after each, as long as they are.

    Args:
        prompts, responses: tokens of each; a prompt that is answered several times stands here as often.
    """
    read, written = sum(prompts), sum(responses)
    # What a token attends to, summed: half the prompt while it is read, then all of it and half the response.
    pairs = sum(p * p / 2 + r * (p + r / 2) for p, r in zip(prompts, responses, strict=True))
    attended = attention_flops(1.0, num_layers=num_layers, num_heads=num_heads, head_dim=head_dim, keys=pairs)
    return 2.0 * num_params * (read + written) + attended


def cost_usd(device_seconds: float, usd_per_device_hour: float) -> float | None:
    """Money for `device_seconds`; None where no price is known, which is not the same as free."""
    return device_seconds / 3600.0 * usd_per_device_hour if usd_per_device_hour else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine(Record):
    """What one stage used, over all its attempts (`ledger.jsonl`)."""

    schema: ClassVar[str] = "ledger/1"
    stage: str  # convert, distill, filter, sft, grpo, evaluate ...
    name: str  # which run of the stage: its workdir's name
    device_kind: str
    device_count: int
    seconds: float  # wall clock, compilation included
    device_seconds: float  # seconds x device_count of every attempt: they may have had others
    compile_seconds: float  # wall clock in which JAX traced, lowered or compiled
    tokens_in: int  # read: prompts, or tokens trained on
    tokens_out: int  # generated
    flops: float
    usd: float | None = None  # None: no price was given
    attempts: int = 1  # 1 + the times it was killed and resumed
    resumed: bool = False


def mean_devices(row: Mapping[str, Any]) -> float:
    """How many devices the attempts of a ledger line had, by their seconds."""
    return float(row["device_seconds"] / row["seconds"] if row["seconds"] else row["device_count"])


def append_ledger(workdir: str | Path, line: LedgerLine) -> None:
    """Adds one line to the workdir's ledger.jsonl; of several processes only the first one does."""
    if not processes.is_writer():  # not even to look: the first one may be mending the file
        return
    with JsonlAppender(Path(workdir) / "ledger.jsonl", LedgerLine) as ledger:
        ledger.append(line)


def read_ledger(workdir: str | Path) -> list[LedgerLine]:
    """The workdir's ledger: the last line of each (stage, name), since a line covers all attempts before it.

    Raises:
        RecordError: there is no ledger (the stage has not finished), or a line of it is malformed.
    """
    lines = read_jsonl(Path(workdir) / "ledger.jsonl", LedgerLine)
    return list({(line.stage, line.name): line for line in lines}.values())


class CompileTimer:
    """Wall seconds in which JAX was tracing, lowering or compiling, from JAX's own monitoring events.

    Events nest (a jit within a jit), so the intervals are merged before they are summed.

    Attributes:
        programs: compiled so far; one that the persistent cache gave counts as well.
    """

    def __init__(self) -> None:
        self._intervals: list[tuple[float, float]] = []
        self.programs = 0

    def add(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """The listener: an event is reported when it ends."""
        if event.startswith("/jax/core/compile/"):
            self.programs += event == "/jax/core/compile/backend_compile_duration"
            end = time.monotonic()
            start = end - duration_secs
            while self._intervals and self._intervals[-1][1] >= start:
                start = min(start, self._intervals.pop()[0])
            self._intervals.append((start, end))

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self._intervals)


class StageClock:
    """Measures a stage's wall, device and compile seconds, summed over attempts that were killed and resumed.

    Elapsed time is kept in workdir/clock.json: written on entry, on exit, and by `tick()`, so a SIGKILL loses at most
    `save_every_s` seconds of it.

    Args:
        stage: name of the stage, as the ledger shows it.
        device_kind, device_count: of the devices that the stage occupies. By default JAX's; a stage that computes
            nothing with JAX passes device_kind="cpu", and JAX is not imported. A process on CPU counts as one device,
            whatever the number of (fake) CPU devices, because they share its cores.
    """

    def __init__(
        self,
        workdir: str | Path,
        stage: str,
        *,
        device_kind: str | None = None,
        device_count: int = 1,
        save_every_s: float = 5.0,
    ):
        self.workdir, self.stage, self.save_every_s = Path(workdir), stage, save_every_s
        self._compile = CompileTimer()
        self._listens = device_kind is None
        if device_kind is None:
            device_kind, device_count = _jax_devices()
        self.device_kind, self.device_count = device_kind, device_count
        self._earlier_seconds, self._earlier_device_seconds, self._earlier_compile_seconds = 0.0, 0.0, 0.0
        self.attempts = 1
        self._started = self._saved = time.monotonic()
        self._began = time.time()  # the first attempt

    def __enter__(self) -> Self:
        path = self.workdir / "clock.json"
        if path.exists():
            earlier = read_json(path)
            self._earlier_seconds, self._earlier_compile_seconds = earlier["seconds"], earlier["compile_seconds"]
            self.attempts = earlier["attempts"] + 1
            # Older workdirs say neither.
            self._earlier_device_seconds = earlier.get("device_seconds", earlier["seconds"] * self.device_count)
            self._began = earlier.get("began", time.time() - earlier["seconds"])
        self._started = time.monotonic()
        if self._listens:
            from jax import monitoring

            monitoring.register_event_duration_secs_listener(self._compile.add)
        self._save()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._listens:
            from jax import monitoring

            monitoring.unregister_event_duration_listener(self._compile.add)
        self._save()

    @property
    def seconds(self) -> float:
        """Wall seconds of this attempt and the earlier ones."""
        return self._earlier_seconds + time.monotonic() - self._started

    @property
    def device_seconds(self) -> float:
        """Of this attempt on its devices and the earlier ones on theirs."""
        return self._earlier_device_seconds + (self.seconds - self._earlier_seconds) * self.device_count

    @property
    def compile_seconds(self) -> float:
        """The part of `seconds` in which JAX traced, lowered or compiled."""
        return self._earlier_compile_seconds + self._compile.seconds

    @property
    def seconds_since_start(self) -> float:
        """From the beginning of the first attempt until now, the time between attempts included."""
        return max(time.time() - self._began, self.seconds)

    @property
    def programs(self) -> int:
        """Programs that JAX compiled in this attempt."""
        return self._compile.programs

    def occupy(self, device_kind: str, device_count: int) -> None:
        """Says that this attempt's devices are not JAX's but these, of an engine in another process."""
        self.device_kind, self.device_count = device_kind, device_count

    def tick(self) -> None:
        """Call once per step: saves the elapsed time if the last save is `save_every_s` old."""
        if time.monotonic() - self._saved >= self.save_every_s:
            self._save()

    def line(
        self, *, tokens_in: int = 0, tokens_out: int = 0, flops: float = 0.0, price: PriceConfig | None = None
    ) -> LedgerLine:
        """The ledger line of the stage up to now, all attempts together.

        Args:
            tokens_in: read, padding excluded: prompts, or tokens trained on.
            tokens_out: generated.
            flops: model FLOPs, from the functions above.
            price: of one device-hour; without it `usd` is None.
        """
        device_seconds = self.device_seconds
        return LedgerLine(
            stage=self.stage,
            name=self.workdir.resolve().name,
            device_kind=self.device_kind,
            device_count=self.device_count,
            seconds=self.seconds,
            device_seconds=device_seconds,
            compile_seconds=self.compile_seconds,
            tokens_in=int(tokens_in),
            tokens_out=int(tokens_out),
            flops=float(flops),
            usd=cost_usd(device_seconds, price.usd_per_device_hour) if price else None,
            attempts=self.attempts,
            resumed=self.attempts > 1,
        )

    def _save(self) -> None:
        self._saved = time.monotonic()
        elapsed = {
            "seconds": self.seconds,
            "device_seconds": self.device_seconds,
            "compile_seconds": self.compile_seconds,
            "attempts": self.attempts,
            "began": self._began,
        }
        write_json(self.workdir / "clock.json", elapsed)


def _jax_devices() -> tuple[str, int]:
    """(kind, count over all processes)."""
    import jax

    device = jax.devices()[0]
    count = jax.process_count() if device.platform == "cpu" else jax.device_count()
    return device.device_kind, count
