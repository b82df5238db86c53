"""Fine-tune all parameters of a student on traces: NLL of the response tokens and the closing EOS.

Writes export/ (a Hugging Face directory), checkpoints/ and metrics.jsonl. A killed run resumes from its newest
checkpoint with the next batch in line, so its loss curve is that of an unbroken one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
from absl import logging
from flax import nnx

from w2sr_jax.core import cost, preemption, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import Preempted, UsageError
from w2sr_jax.core.mesh import local_rows, mesh_or_none
from w2sr_jax.core.metrics import MetricWriter, Progress
from w2sr_jax.core.profile import Profile
from w2sr_jax.core.stage_config import SFTConfig
from w2sr_jax.core.step_meter import StepMeter, Work
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.data.pipeline import make_pipeline
from w2sr_jax.learn.checkpoint import Checkpointer
from w2sr_jax.learn.optim import learning_rate, make_optimizer
from w2sr_jax.learn.pace import one_at_a_time, settled
from w2sr_jax.learn.state import abstract_state, init_state, load_model, place_batch, place_rate
from w2sr_jax.learn.step import make_sft_step
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape

CONFIG = SFTConfig


def main(config: SFTConfig, workdir: str) -> dict[str, float]:
    """Trains and exports.

    Returns:
        {"loss": of the last step, "steps", "tokens": seen, padding excluded}.
    """
    validate(config)
    root, directory = Path(workdir), hf.resolve(config.model)
    with cost.StageClock(workdir, "sft") as clock:
        mesh = mesh_or_none(config.mesh)

        # ---- data
        tokenizer, rows = load_tokenizer(directory), config.data.batch_size
        mine = None if mesh is None else local_rows(mesh, rows)
        pipeline = make_pipeline(config.data, tokenizer, rows=mine, model_dir=directory)
        total = config.steps or pipeline.steps_for(config.epochs)
        if total < 1:
            raise UsageError("config.steps, config.epochs: nothing to train; set one of them above 0")
        logging.info(
            "%d examples in %d rows, %d steps; left out: %s",
            *(pipeline.num_examples, pipeline.num_rows, total, pipeline.dropped or "none"),
        )

        # ---- model and state
        train = config.train
        graphdef, params = nnx.split(load_model(directory, mesh, train))
        optimizer = make_optimizer(config.optimizer)
        state = init_state(params, optimizer, mesh)
        train_step = make_sft_step(graphdef, config.optimizer, train, mesh, pipeline.row_examples)
        start, tokens, flops, metrics = 0, 0, 0.0, dict[str, float]()
        shape = flops_shape(hf.load_config(directory))

        with Checkpointer(root / "checkpoints", config.checkpoint) as checkpointer:
            if restored := checkpointer.restore_latest(abstract_state(params, optimizer, mesh)):
                start, state, extra = restored
                pipeline.set_state(extra["pipeline"])
                tokens = extra["tokens"]
                flops = extra.get("flops", cost.train_flops(tokens=tokens, **shape))  # older ones do not say
                metrics["loss"] = extra.get("loss", math.nan)  # should only the export be missing
                logging.info("resuming at step %d of %d", start, total)

            # ---- steps: an accelerator's metrics are fetched one step late, so that it never waits for the host, a
            # CPU's before the next step is sent
            with (
                MetricWriter(root, start) as writer,
                Progress(total, f"{root.name}: sft") as progress,
                Profile(config.profile, root, total) as profile,
                preemption.at_step_ends(),
            ):
                pending: tuple[int, dict[str, Any], Work] | None = None
                meter = StepMeter(clock, mesh, config.peak_tflops, writer.earlier)

                def write_pending() -> None:
                    nonlocal metrics, pending
                    if pending is None:
                        return
                    step, values, work = pending
                    pending = None
                    metrics = {name: float(value) for name, value in jax.device_get(values).items()}
                    metrics |= {"learning_rate": learning_rate(config.optimizer, step, total)} | meter.row(work)
                    writer.write(step, metrics)
                    progress.update(step + 1, loss=metrics["loss"])
                    clock.tick()

                def save(step: int) -> None:
                    write_pending()
                    said = {"tokens": tokens, "flops": flops, "loss": metrics["loss"]}
                    extra = {"pipeline": pipeline.get_state(), **said}
                    with meter.part("checkpoint_seconds"):
                        checkpointer.save(step, state, extra, score=-metrics["loss"])

                for step in range(start, total):
                    if preemption.now(step):
                        if step > start:
                            save(step)
                        raise Preempted
                    rate = learning_rate(config.optimizer, step, total)
                    with profile.step(step, meter, settle=write_pending):
                        with meter.part("data_wait_seconds", running=pending and pending[1]):
                            batch = place_batch(next(pipeline), mesh, rows)
                        state, values = settled(train_step(state, batch, place_rate(rate, mesh)))
                        write_pending()
                        tokens += (count := pipeline.batch_tokens)
                        flops += (done := cost.train_flops(tokens=count, context=pipeline.batch_context, **shape))
                        padded = rows * config.data.max_length
                        pending = step, values, Work(tokens=count, padded_tokens=padded, flops=done)
                        if one_at_a_time():
                            write_pending()
                    every = config.checkpoint.every_steps
                    if (every and (step + 1) % every == 0) or step + 1 == total:
                        save(step + 1)

            hf.save(nnx.merge(graphdef, state.params), root / "export", config.export_dtype, tokenizer_from=directory)
            with meter.part("checkpoint_seconds"):
                checkpointer.wait()
        cost.append_ledger(workdir, clock.line(tokens_in=tokens, flops=flops, price=config.price))
        logging.info("%s: %d steps, %d tokens, loss %.4f", root.name, total, tokens, metrics.get("loss", math.nan))
        logging.info("%s: %s", root.name, meter.summary())
    return {"loss": metrics.get("loss", math.nan), "steps": total, "tokens": tokens}


if __name__ == "__main__":
    runtime.main_exit("sft", main, CONFIG)
