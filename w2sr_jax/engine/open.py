"""An engine by name, and the part that distill, evaluate and GRPO share: asking it for what is still missing."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, processes
from w2sr_jax.core.config import DecodeConfig, MeshConfig, SamplingConfig
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import JsonlAppender
from w2sr_jax.core.metrics import Progress
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.core.stage_config import DistillConfig, EvaluateConfig
from w2sr_jax.data.chat import load_tokenizer, render, stop_token_ids
from w2sr_jax.engine.base import Completion, Generator, Sampling, encode_prompts
from w2sr_jax.engine.limits import check_problems
from w2sr_jax.model.flops import FlopsShape


def open_engine(kind: str, directory: str | Path, decode: DecodeConfig, mesh: MeshConfig) -> Generator:
    """The engine `kind` ("jax" or "vllm") with the model of a Hugging Face directory; whoever opens it closes it.

    Args:
        mesh: where the JAX engine lives; vLLM splits tensors over `mesh.tensor` devices and knows no other axis.

    Raises:
        UsageError: vLLM is not installed, or mesh.tensor is left open for it.
    """
    if kind == "vllm":
        if processes.count() > 1:
            raise UsageError("config.engine: vllm is started by one process; use jax where several run")
        from w2sr_jax.engine.vllm_engine import VllmEngine

        if mesh.tensor < 1:
            raise UsageError("config.mesh.tensor: must be a number of devices with vllm, got -1")
        return VllmEngine(
            directory,
            decode.dtype,
            batch_size=decode.batch_size,
            tensor_parallel=mesh.tensor,
            options=decode.vllm,
        )
    from w2sr_jax.core.mesh import mesh_or_none
    from w2sr_jax.engine.jax_engine import JaxEngine

    assert kind == "jax", kind  # config.validate allows no other
    return JaxEngine(directory, dtype=decode.dtype, mesh=mesh_or_none(mesh), batch_size=decode.batch_size)


def sampling_for(config: SamplingConfig, stop_ids: Sequence[int], logprobs: bool = False) -> Sampling:
    """The engine's view of a sampling config."""
    return Sampling(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        n=config.n,
        seed=config.seed,
        stop_token_ids=tuple(stop_ids),
        logprobs=logprobs,
    )


def model_name(model: str) -> str:
    """What to call a model in records: the last part of its path or hub id, or the run that exported it."""
    parts = [part for part in model.rstrip("/").split("/") if part]
    return parts[-2] if parts[-1] == "export" and len(parts) > 1 else parts[-1]


def request_seed(seed: int, problem_id: str) -> int:
    """A problem's own random stream: neither a resumed run nor another order of the problems changes it."""
    return zlib.crc32(f"{seed}:{problem_id}".encode())


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """All traces of a stage, those of earlier attempts included."""

    traces: list[Trace]  # in the order of the problems and samples
    prompts: list[int]  # tokens of the prompt of each
    provenance: dict[str, object]  # of the engine and the decoding

    @property
    def used(self) -> dict[str, Any]:
        """Tokens in and out, for the ledger."""
        return {"tokens_in": sum(self.prompts), "tokens_out": sum(trace.response_tokens for trace in self.traces)}

    def flops(self, shape: FlopsShape) -> float:
        """Of reading every prompt and writing every response."""
        return cost.answer_flops(prompts=self.prompts, responses=[t.response_tokens for t in self.traces], **shape)


def write_traces(
    path: Path,
    directory: Path,
    problems: Sequence[Problem],
    config: DistillConfig | EvaluateConfig,
    sampling: SamplingConfig,
    template: str,
    clock: cost.StageClock,
) -> Answers:
    """Answers every (problem, sample) that `path` does not hold yet; each answer is appended as it finishes.

    Args:
        path: JSONL of Trace, appended to.
        directory: Hugging Face directory of the model.
        config: its engine, and a response_prefix, which is put after the prompt and in front of the response.
        sampling, template: of the config, or of the protocol that it names.
        clock: of the stage; it is told of vLLM's devices, and ticks after every answer.
    """
    prefix, teacher = config.response_prefix, model_name(config.model)
    tokenizer = load_tokenizer(directory)
    stop_ids, why = stop_token_ids(directory, tokenizer)
    logging.info("stops at %s: %s", list(stop_ids), why)
    prefix_tokens = len(tokenizer.encode(prefix, add_special_tokens=False)) if prefix else 0
    engine_sampling = sampling_for(sampling, stop_ids)
    check_problems(template, problems, directory, tokenizer, engine_sampling, prefix)
    prompts = {p.id: render(template, p.problem, tokenizer) for p in problems}
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(
            contextlib.closing(open_engine(config.engine, directory, config.decode, config.mesh))
        )
        with processes.writer_first(path.name):  # all must know the same answers, and the first one mends the file
            appender = stack.enter_context(JsonlAppender(path, Trace))
        about = engine.describe()
        if config.engine == "vllm":
            clock.occupy(about["device_kind"], about["devices"])
        provenance: dict[str, object] = {"stop_token_ids": list(stop_ids), "stop_reason": why, "engine": about}
        done = {(trace.problem_id, trace.sample): trace for trace in appender.existing}
        total = len(problems) * sampling.n
        asked = [p for p in problems if any((p.id, s) not in done for s in range(sampling.n))]
        with Progress(total, f"{path.parent.name}: {teacher}", "response") as progress:
            start, tokens = time.monotonic(), 0

            def finished(index: int, sample: int, completion: Completion) -> None:
                nonlocal tokens
                problem = asked[index]
                if (problem.id, sample) in done:
                    return
                trace = Trace(
                    problem_id=problem.id,
                    sample=sample,
                    response=prefix + completion.text,
                    response_tokens=prefix_tokens + len(completion.token_ids),
                    finish_reason=completion.finish_reason,
                    teacher=teacher,
                )
                appender.append(trace)
                done[problem.id, sample] = trace
                tokens += len(completion.token_ids)
                progress.update(len(done), rate=f"{tokens / (time.monotonic() - start):.0f} tokens/s")
                clock.tick()

            engine.generate(
                [prompts[p.id] + prefix for p in asked],
                engine_sampling,
                seeds=[request_seed(sampling.seed, p.id) for p in asked],
                on_finished=finished,
            )
    lengths = [len(ids) for ids in encode_prompts(list(prompts.values()), tokenizer)]
    return Answers(
        [done[p.id, s] for p in problems for s in range(sampling.n)],
        [length for length in lengths for _ in range(sampling.n)],
        provenance,
    )
