"""Train a model by GRPO with verifiable rewards: the expensive ceiling that RGR counts to.

Each step asks `prompts_per_step` problems `sampling.n` times, grades the answers (reward 1 or 0), and updates the
policy on group-normalised advantages. With `validation` problems, training ends when greedy Pass@1 on them has not
risen by `min_gain` for `patience` validations, and the best policy seen is exported. Writes export/, checkpoints/
and metrics.jsonl; a killed run resumes from its newest checkpoint, and its rollouts are those of an unbroken one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import logging

from w2sr_jax.core import cost, preemption, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.errors import Preempted
from w2sr_jax.core.mesh import mesh_or_none
from w2sr_jax.core.metrics import MetricWriter, Progress
from w2sr_jax.core.profile import Profile
from w2sr_jax.core.records import Problem
from w2sr_jax.core.stage_config import GRPOConfig
from w2sr_jax.core.step_meter import StepMeter, Work
from w2sr_jax.data.chat import load_tokenizer, stop_token_ids
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.engine.base import Generator, Sampling
from w2sr_jax.engine.groups import Asker, Group, sample_groups
from w2sr_jax.engine.limits import check_problems
from w2sr_jax.engine.open import open_engine, sampling_for
from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.learn.advantages import group_advantages, overlong_penalty
from w2sr_jax.learn.checkpoint import Checkpointer
from w2sr_jax.learn.convergence import Convergence
from w2sr_jax.learn.policy import Policy, updates_per_rollout
from w2sr_jax.learn.rollout import Stream, bucket, pad_rollout
from w2sr_jax.learn.step import RolloutBatch
from w2sr_jax.model import hf
from w2sr_jax.model.flops import FlopsShape, flops_shape

CONFIG = GRPOConfig


@dataclasses.dataclass(slots=True)
class Position:
    """Where training stands: all that a checkpoint holds beside the policy's state."""

    stream: Stream
    converged: Convergence
    step: int = 0
    tokens_out: int = 0  # sampled for training, groups that dynamic sampling left out included
    tokens_in: int = 0  # trained on, a pass
    flops: float = 0.0  # of both, and of the passes between them
    reward: float = math.nan  # mean of the last step; metrics.jsonl has it too, but only process 0 writes that
    best_step: int = 0  # whose policy is exported, where there is validation

    def save(self, checkpointer: Checkpointer, policy: Policy, score: float | None = None) -> None:
        extra = {
            "cursor": self.stream.cursor,
            "tokens_out": self.tokens_out,
            "tokens_in": self.tokens_in,
            "flops": self.flops,
            "reward": self.reward if self.step else None,
            "best_step": self.best_step,
            "convergence": dataclasses.asdict(self.converged),
        }
        checkpointer.save(self.step, policy.state, extra, score)

    def restore(self, checkpointer: Checkpointer, policy: Policy) -> None:
        """Takes the newest checkpoint, if there is one."""
        if restored := checkpointer.restore_latest(policy.abstract()):
            self.step, policy.state, extra = restored
            self.stream.cursor = extra["cursor"]
            self.tokens_out, self.tokens_in = extra["tokens_out"], extra["tokens_in"]
            self.flops = extra.get("flops", 0.0)  # older ones do not say, and those steps are not counted
            self.reward = math.nan if (reward := extra.get("reward")) is None else reward  # older ones do not say
            self.best_step = extra.get("best_step", 0)  # older ones do not say
            self.converged = dataclasses.replace(self.converged, **extra["convergence"])


def main(config: GRPOConfig, workdir: str) -> dict[str, float]:
    """Trains and exports.

    Returns:
        {"steps", "reward": mean of the last step, "best": validation Pass@1 of the exported policy, if validated}.
    """
    validate(config)
    root, directory = Path(workdir), hf.resolve(config.model)
    with (
        cost.StageClock(workdir, "grpo") as clock,
        GraderPool(config.grading_workers, config.deadline_s) as pool,
        Checkpointer(root / "checkpoints", config.checkpoint) as checkpointer,
    ):
        # ---- data
        tokenizer = load_tokenizer(directory)
        stop_ids, why = stop_token_ids(directory, tokenizer)
        logging.info("stops at %s: %s", list(stop_ids), why)
        problems = load_problems(config.problems)
        held_out = load_problems(config.validation) if config.validation else []
        sampling = sampling_for(config.sampling, stop_ids, logprobs=True)
        check_problems(config.template, [*problems, *held_out], directory, tokenizer, sampling)

        # ---- policy and engine, and where they stand
        policy = Policy.load(config, directory, mesh_or_none(config.mesh))
        shape = flops_shape(hf.load_config(directory))
        convergence = Convergence(config.min_gain, config.patience, config.stop_at_reward)
        at = Position(Stream(len(problems), config.seed), convergence)
        at.restore(checkpointer, policy)
        if at.step:
            logging.info("resuming at step %d of at most %d", at.step, config.steps)
            if at.best_step == at.step:  # a kill may have come before the export
                policy.export(root / "export", directory)
        engine = open_engine(config.engine, directory, config.decode, config.mesh)

        def waiting() -> contextlib.AbstractContextManager[None]:
            return meter.part("data_wait_seconds")  # the devices have nothing to do meanwhile

        asker = Asker(engine, tokenizer, config.template, pool, waiting)

        with (
            contextlib.closing(engine),
            open_hand_over(config, engine, policy, asker, problems, workdir) as hand_over,
            MetricWriter(root, at.step) as writer,
            Progress(config.steps, f"{root.name}: grpo") as progress,
            Profile(config.profile, root, config.steps) as profile,
            preemption.at_step_ends(),
        ):
            if at.step < config.steps and not at.converged.done:
                hand_over()
            meter = StepMeter(clock, policy.mesh, config.peak_tflops, writer.earlier)
            while at.step < config.steps and not at.converged.done:
                if preemption.now(at.step):
                    at.save(checkpointer, policy)
                    raise Preempted
                with profile.step(at.step, meter):
                    # ---- rollout
                    began = time.monotonic()
                    groups, left_out = rollout(config, asker, problems, at, sampling)
                    batch, row = to_batch(config, groups)
                    sampled = time.monotonic()

                    # ---- updates
                    row |= policy.learn(batch, at.step)
                    row |= {"rollout_seconds": sampled - began, "update_seconds": time.monotonic() - sampled}
                    row |= hand_over()
                at.step, at.reward = at.step + 1, row["reward"]
                lengths_B = (batch.segment_ids_BT > 0).sum(axis=1)
                asked = [(len(g.prompt), len(c.token_ids)) for g in (*groups, *left_out) for c in g.completions]
                sampling_work, work = sampling_flops(asked, shape), update_flops(config, lengths_B, shape)
                at.tokens_out += sum(written for _, written in asked)
                at.tokens_in += (tokens_in := int(lengths_B.sum()))
                at.flops += sampling_work + work

                # ---- validation, which decides what is exported and when it ends
                shown = {"reward": row["reward"]}
                if held_out and (at.step % config.validate_every == 0 or at.step == config.steps):
                    with meter.part("validation_seconds"):
                        shown["validation"] = row["validation_pass_at_1"] = asker.pass_at_1(held_out, sampling)
                    if at.converged.see(shown["validation"]):
                        at.best_step = at.step
                # What vLLM computes, it computes elsewhere, or while the mesh does nothing.
                work += sampling_work if config.engine == "jax" else 0.0
                row |= meter.row(Work(tokens=tokens_in, padded_tokens=batch.segment_ids_BT.size, flops=work))
                writer.write(at.step - 1, row)
                progress.update(at.step, **shown)
                clock.tick()

                # ---- what is kept: a new best is saved before its export, of which a resumed run would not know else
                every, ends = config.checkpoint.every_steps, at.step == config.steps or at.converged.done
                new_best = at.best_step == at.step
                second = "validation" in shown and config.checkpoint.keep_best > 1  # or third
                if ends or new_best or second or (every and at.step % every == 0):
                    with meter.part("checkpoint_seconds"):
                        at.save(checkpointer, policy, shown.get("validation"))
                        if new_best:
                            checkpointer.wait()
                if new_best:
                    policy.export(root / "export", directory)
        if not held_out:
            policy.export(root / "export", directory)
        with meter.part("checkpoint_seconds"):
            checkpointer.wait()
        line = clock.line(tokens_in=at.tokens_in, tokens_out=at.tokens_out, flops=at.flops, price=config.price)
        cost.append_ledger(workdir, line)
        logging.info("%s: %s", root.name, meter.summary())
    reason, best = "converged" if at.converged.done else "all steps done", at.converged.best
    told = f", best {best:.3f}" if held_out else ""
    logging.info("%s: %s after %d steps, reward %.3f%s", root.name, reason, at.step, at.reward, told)
    return {"steps": at.step, "reward": at.reward} | ({"best": best} if held_out else {})


@contextlib.contextmanager
def open_hand_over(
    config: GRPOConfig, engine: Generator, policy: Policy, asker: Asker, problems: list[Problem], workdir: str
) -> Iterator[Callable[[], dict[str, float]]]:
    """What brings the policy's present weights to the engine, and returns metrics of that."""
    if config.engine == "jax":

        def in_memory() -> dict[str, float]:
            began = time.monotonic()
            engine.update_weights(policy.state.params)
            return {"sync_seconds": time.monotonic() - began}

        yield in_memory
        return
    from w2sr_jax.engine.sync import PROMPTS, TOLERANCE, open_sync
    from w2sr_jax.engine.vllm_engine import VllmEngine

    assert isinstance(engine, VllmEngine)
    directory, dtype = hf.resolve(config.model), config.decode.dtype
    coarser = "float32" if dtype == config.train.dtype == "float32" else "bfloat16"
    prompts = [asker.encode(problem) for problem in problems[:PROMPTS]]
    tolerance = config.sync_tolerance or TOLERANCE[coarser]
    write = functools.partial(policy.export, tokenizer_from=directory, dtype=dtype)
    with contextlib.closing(open_sync(engine, workdir, config.sync_dir, prompts, tolerance)) as sync:
        # A step changes weights so little that one left behind would not show for long: here it does.
        other = policy.disturbed()
        sync(functools.partial(write, params=other), functools.partial(policy.score, params=other))
        del other
        yield lambda: sync(write, policy.score)


def rollout(
    config: GRPOConfig, asker: Asker, problems: list[Problem], at: Position, sampling: Sampling
) -> tuple[list[Group], list[Group]]:
    """Graded groups of the next `prompts_per_step` problems, and those that dynamic sampling left out."""

    def ask(count: int, attempt: int) -> list[Group]:
        return asker.ask([problems[i] for i in at.stream.take(count)], sampling, f"{at.step}.{attempt}")

    return sample_groups(ask, config.prompts_per_step, config.max_resamples if config.dynamic_sampling else 0)


def to_batch(config: GRPOConfig, groups: list[Group]) -> tuple[RolloutBatch, dict[str, float]]:
    """The arrays to learn from, one response a row, and what the rollout's metrics say of it."""
    completions = [one for group in groups for one in group.completions]
    correct_PG = np.stack([group.correct_G for group in groups])
    lengths_PG = np.array([len(one.token_ids) for one in completions]).reshape(correct_PG.shape)
    rewards_PG = correct_PG
    if config.overlong_buffer:
        rewards_PG = correct_PG + overlong_penalty(lengths_PG, config.sampling.max_tokens, config.overlong_buffer)
    advantages_PG, flat = group_advantages(rewards_PG, config.loss.advantage)
    prompts = [group.prompt for group in groups for _ in group.completions]
    batch = pad_rollout(
        prompts,
        [one.token_ids for one in completions],
        [one.logprobs or [] for one in completions],  # never None: main asks for them
        advantages_PG.reshape(-1),
        bucket(max(len(prompt) + len(one.token_ids) for prompt, one in zip(prompts, completions))),
    )
    return batch, {
        "reward": float(correct_PG.mean()),
        "zero_variance_groups": flat / len(groups),
        "response_tokens": float(lengths_PG.mean()),
        "stop_rate": float(np.mean([one.finish_reason == "stop" for one in completions])),
    }


def sampling_flops(asked: list[tuple[int, int]], shape: FlopsShape) -> float:
    """Of sampling; `asked` has the tokens of each prompt and of its response."""
    prompts, responses = zip(*asked)
    return cost.answer_flops(prompts=prompts, responses=responses, **shape)


def update_flops(config: GRPOConfig, lengths_B: np.ndarray, shape: FlopsShape) -> float:
    """Of updates, and of the forward passes for old and reference logprobs, where they are computed at all.

    Args:
        lengths_B: tokens of each row, prompt and response.
    """
    passes = (updates_per_rollout(config) > 1) + bool(config.loss.kl)
    tokens = int(lengths_B.sum())
    context = float((lengths_B**2).sum()) / tokens  # of a token, on average
    return cost.train_flops(tokens=tokens * config.epochs_per_step, context=context, **shape) + cost.prefill_flops(
        tokens=tokens * passes, context=context, **shape
    )


if __name__ == "__main__":
    runtime.main_exit("grpo", main, CONFIG)
