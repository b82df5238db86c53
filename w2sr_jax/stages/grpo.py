"""Train a model by GRPO with verifiable rewards: the expensive ceiling that RGR counts to.

Each step asks `prompts_per_step` problems `sampling.n` times, grades the answers (reward 1 or 0), and updates the
policy on group-normalised advantages. With `validation` problems, training ends when greedy Pass@1 on them has not
risen by `min_gain` for `patience` validations, and the best policy seen is exported. Writes export/, checkpoints/
and metrics.jsonl; a killed run resumes from its newest checkpoint, and its rollouts are those of an unbroken one.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core import cost, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.mesh import mesh_or_none
from w2sr_jax.core.metrics import MetricWriter, Progress
from w2sr_jax.core.records import Problem
from w2sr_jax.core.stage_config import GRPOConfig
from w2sr_jax.data.chat import load_tokenizer, render, stop_token_ids
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.engine.base import Completion, Sampling
from w2sr_jax.engine.jax_engine import JaxEngine
from w2sr_jax.engine.open import request_seed, sampling_for
from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.learn.advantages import group_advantages, overlong_penalty
from w2sr_jax.learn.checkpoint import Checkpointer
from w2sr_jax.learn.optim import learning_rate, make_optimizer
from w2sr_jax.learn.rollout import Stream, bucket, pad_rollout
from w2sr_jax.learn.state import abstract_state, init_state, shard_batch
from w2sr_jax.learn.step import RolloutBatch, make_grpo_step, make_logprob_fn
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape

CONFIG = GRPOConfig


@dataclasses.dataclass(slots=True)
class Asker:
    """Problems in, graded groups out."""

    config: GRPOConfig
    engine: JaxEngine
    tokenizer: Any
    stop_ids: tuple[int, ...]
    pool: GraderPool

    def ask(self, problems: list[Problem], sampling: Sampling, salt: str) -> tuple[list[list[Completion]], np.ndarray]:
        """Completions of each problem and their grades [P, G] (1 correct, 0 not)."""
        groups = self.engine.generate(
            [render(self.config.template, p.problem, self.tokenizer) for p in problems],
            sampling,
            seeds=[request_seed(sampling.seed, f"{salt}:{p.id}") for p in problems],
        )
        grades = self.pool.grade_many(
            [(c.text, p.answer) for p, group in zip(problems, groups) for c in group],
            verifiers=[p.verifier for p, group in zip(problems, groups) for _ in group],
        )
        correct = np.array([g.correct for g in grades], np.float32).reshape(len(problems), -1)
        return groups, correct

    def rewards(self, groups: list[list[Completion]], correct: np.ndarray) -> np.ndarray:
        """Grades with DAPO's soft penalty for answers near the token limit, when that is on."""
        if not self.config.overlong_buffer:
            return correct
        lengths = np.array([[len(c.token_ids) for c in group] for group in groups])
        return correct + overlong_penalty(lengths, self.config.sampling.max_tokens, self.config.overlong_buffer)

    def pass_at_1(self, problems: list[Problem]) -> float:
        """Greedy Pass@1."""
        greedy = dataclasses.replace(sampling_for(self.config.sampling, self.stop_ids), temperature=0.0, n=1)
        return float(self.ask(problems, greedy, "validation")[1].mean())


@dataclasses.dataclass(slots=True)
class Convergence:
    """The stop rule: no gain of `min_gain` in validation Pass@1 for `patience` validations."""

    min_gain: float
    patience: int
    best: float = -1.0
    mark: float = -1.0  # the score that a gain is measured from
    stale: int = 0

    def see(self, score: float) -> bool:
        """Takes the next score; True if it is the best so far."""
        if score >= self.mark + self.min_gain:
            self.mark, self.stale = score, 0
        else:
            self.stale += 1
        improved = score > self.best
        self.best = max(self.best, score)
        return improved

    @property
    def done(self) -> bool:
        return self.stale >= self.patience


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
        Checkpointer(root / "checkpoints", config.checkpoint.keep_last) as checkpointer,
    ):
        # ---- data
        tokenizer = load_tokenizer(directory)
        stop_ids, why = stop_token_ids(directory, tokenizer)
        logging.info("stops at %s: %s", list(stop_ids), why)
        problems = load_problems(config.problems)
        held_out = load_problems(config.validation) if config.validation else []

        # ---- policy, reference, engine
        mesh, train, loss = mesh_or_none(config.mesh), config.train, config.loss
        model = hf.load(directory, mesh, compute_dtype=train.dtype, scan_layers=train.scan_layers, remat=train.remat)
        graphdef, reference = nnx.split(model)
        # The steps donate the policy's buffers, so a reference that is needed later is another copy.
        policy = jax.tree.map(jnp.copy, reference) if loss.kl else reference
        optimizer = make_optimizer(config.optimizer)
        state = init_state(policy, optimizer, mesh)
        updates_per_step = config.epochs_per_step * (config.prompts_per_step // config.minibatch_prompts)
        on_policy = updates_per_step == 1
        update = make_grpo_step(
            graphdef, config.optimizer, loss, train, mesh, max_tokens=config.sampling.max_tokens, on_policy=on_policy
        )
        token_logprobs = make_logprob_fn(graphdef, train, mesh)
        engine = JaxEngine.from_model(
            nnx.merge(graphdef, policy), tokenizer, batch_size=config.decode.batch_size, mesh=mesh
        )
        asker = Asker(config, engine, tokenizer, stop_ids, pool)
        sampling = sampling_for(config.sampling, stop_ids, logprobs=True)

        # ---- where we are
        stream = Stream(len(problems), config.seed)
        converged = Convergence(config.min_gain, config.patience)
        start, tokens_out, tokens_in = 0, 0, 0
        if restored := checkpointer.restore_latest(abstract_state(policy, optimizer, mesh)):
            start, state, extra = restored
            stream.cursor, tokens_out, tokens_in = extra["cursor"], extra["tokens_out"], extra["tokens_in"]
            converged = Convergence(**extra["convergence"])
            engine.update_weights(state.params)
            logging.info("resuming at step %d of at most %d", start, config.steps)

        def export() -> None:
            hf.save(nnx.merge(graphdef, state.params), root / "export", config.export_dtype, tokenizer_from=directory)

        step, reward = start, float("nan")
        with MetricWriter(root, start) as writer, Progress(config.steps, f"{root.name}: grpo") as progress:
            while step < config.steps and not converged.done:
                # ---- rollout and reward
                began = time.monotonic()
                groups, asked, correct = rollout(config, asker, problems, stream, sampling, step)
                rewards = asker.rewards(groups, correct)
                advantages, flat = group_advantages(rewards, loss.advantage)
                completions = [c for group in groups for c in group]
                prompts = [
                    tokenizer.encode(render(config.template, p.problem, tokenizer), add_special_tokens=False)
                    for p in asked
                    for _ in range(sampling.n)
                ]
                sampled = time.monotonic()

                # ---- old and reference logprobs, then the minibatches
                length = bucket(max(len(p) + len(c.token_ids) for p, c in zip(prompts, completions)))
                batch = pad_rollout(
                    prompts,
                    [c.token_ids for c in completions],
                    [c.logprobs or [] for c in completions],
                    advantages.reshape(-1),
                    length,
                )
                parts = minibatches(batch, config.minibatch_prompts * sampling.n, mesh)
                if not on_policy:
                    parts = [replace(p, old_logprobs_BT=token_logprobs(state.params, p)) for p in parts]
                if loss.kl:
                    parts = [replace(p, ref_logprobs_BT=token_logprobs(reference, p)) for p in parts]
                values: list[dict[str, Any]] = []
                for _ in range(config.epochs_per_step):
                    for part in parts:
                        rate = learning_rate(
                            config.optimizer, step * updates_per_step + len(values), config.steps * updates_per_step
                        )
                        state, metrics = update(state, part, rate)
                        values.append(metrics)
                engine.update_weights(state.params)

                # ---- what happened
                fetched = jax.device_get(values)
                row = {name: float(np.mean([v[name] for v in fetched])) for name in fetched[0]}
                reward = float(correct.mean())
                response_tokens = sum(len(c.token_ids) for c in completions)
                tokens_out += response_tokens
                tokens_in += int((batch.segment_ids_BT > 0).sum())
                row |= {
                    "reward": reward,
                    "zero_variance_groups": flat / len(groups),
                    "response_tokens": response_tokens / len(completions),
                    "stop_rate": float(np.mean([c.finish_reason == "stop" for c in completions])),
                    "learning_rate": rate,
                    "rollout_seconds": sampled - began,
                    "update_seconds": time.monotonic() - sampled,
                }
                step += 1
                if held_out and (step % config.validate_every == 0 or step == config.steps):
                    row["validation_pass_at_1"] = asker.pass_at_1(held_out)
                    if converged.see(row["validation_pass_at_1"]):
                        export()
                    if config.stop_at_reward and converged.best >= config.stop_at_reward:
                        converged.stale = converged.patience
                writer.write(step - 1, row)
                shown = {"validation": row["validation_pass_at_1"]} if "validation_pass_at_1" in row else {}
                progress.update(step, reward=reward, **shown)
                clock.tick()
                every, ends = config.checkpoint.every_steps, step == config.steps or converged.done
                if ends or (every and step % every == 0):
                    extra = {
                        "cursor": stream.cursor,
                        "tokens_out": tokens_out,
                        "tokens_in": tokens_in,
                        "convergence": dataclasses.asdict(converged),
                    }
                    checkpointer.save(step, state, extra)
        if not held_out:
            export()
        shape, context = flops_shape(hf.load_config(directory)), config.sampling.max_tokens / 2
        # Old logprobs and the reference are a forward pass each, where they are computed at all.
        passes = (not on_policy) + bool(loss.kl)
        flops = (
            cost.decode_flops(tokens=tokens_out, context=context, **shape)
            + cost.train_flops(tokens=tokens_in * config.epochs_per_step, context=2 * context, **shape)
            + cost.prefill_flops(tokens=tokens_in * passes, context=2 * context, **shape)
        )
        cost.append_ledger(
            workdir, clock.line(tokens_in=tokens_in, tokens_out=tokens_out, flops=flops, price=config.price)
        )
    reason = "converged" if converged.done else "all steps done"
    logging.info("%s: %s after %d steps, reward %.3f, best %.3f", root.name, reason, step, reward, converged.best)
    return {"steps": step, "reward": reward} | ({"best": converged.best} if held_out else {})


def minibatches(batch: RolloutBatch, rows: int, mesh: Mesh | None) -> list[RolloutBatch]:
    """Consecutive `rows` rows each, placed on the mesh."""
    starts = range(0, len(batch.advantages_B), rows)
    parts = [jax.tree.map(lambda x, i=i: x[i : i + rows], batch) for i in starts]
    return parts if mesh is None else [shard_batch(part, mesh) for part in parts]


def rollout(
    config: GRPOConfig, asker: Asker, problems: list[Problem], stream: Stream, sampling: Sampling, step: int
) -> tuple[list[list[Completion]], list[Problem], np.ndarray]:
    """`prompts_per_step` groups with their problems and grades [P, G].

    With dynamic sampling (DAPO, arXiv 2503.14476) groups that are all right or all wrong are replaced by those of
    further problems, for at most max_resamples rounds; then the last such groups fill what is missing.
    """
    wanted = config.prompts_per_step
    kept: list[tuple[list[Completion], Problem, np.ndarray]] = []
    spare: list[tuple[list[Completion], Problem, np.ndarray]] = []
    for attempt in range(1 + (config.max_resamples if config.dynamic_sampling else 0)):
        asked = [problems[i] for i in stream.take(wanted - len(kept))]
        groups, correct = asker.ask(asked, sampling, f"{step}.{attempt}")
        for group in zip(groups, asked, correct):
            mixed = 0.0 < group[2].mean() < 1.0
            (kept if mixed or not config.dynamic_sampling else spare).append(group)
        if len(kept) >= wanted:
            break
    chosen = (kept + spare[::-1])[:wanted]
    return [c[0] for c in chosen], [c[1] for c in chosen], np.stack([c[2] for c in chosen])


if __name__ == "__main__":
    runtime.main_exit("grpo", main, CONFIG)
