"""PyTorch's side of the training comparison: the updates of `w2sr sft` and `w2sr grpo`, written with transformers."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.stage_config import GRPOLossConfig
from w2sr_jax.learn.optim import learning_rate
from w2sr_jax.twin import torch_model as twin
from w2sr_jax.twin.dump import read_batch

IGNORED = -100


def nll_sum(model: Any, rows: twin.Rows, packed: bool) -> torch.Tensor:
    """Summed negative log-likelihood of the masked targets."""
    logits_BTV = twin.logits(model, rows, packed)
    targets = torch.where(rows["loss_mask_BT"] > 0, rows["targets_BT"].long(), IGNORED)
    return functional.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def target_logprobs(logits_BTV: torch.Tensor, rows: twin.Rows) -> torch.Tensor:
    """Log-probability of each target [B, T], without one of every token."""
    chosen_BT = logits_BTV.gather(-1, rows["targets_BT"].long()[..., None])[..., 0]
    return chosen_BT.float() - torch.logsumexp(logits_BTV.float(), dim=-1)


def logprobs(model: Any, rows: twin.Rows, packed: bool) -> torch.Tensor:
    """Log-probability of each target [B, T]."""
    return target_logprobs(twin.logits(model, rows, packed), rows)


def policy_sum(model: Any, rows: twin.Rows, packed: bool, loss: tuple[float, float, float, float]) -> torch.Tensor:
    """The summed loss of `learn.losses.policy_loss` with token ratios: clipped, with k3 and an entropy bonus.

    Args:
        loss: clip_low, clip_high, weight of the KL, weight of the entropy.
    """
    clip_low, clip_high, kl, bonus = loss
    logits_BTV = twin.logits(model, rows, packed)
    if bonus:  # wants every token's, so the target's come with them
        logp_BTV = torch.log_softmax(logits_BTV.float(), dim=-1)
        logp = logp_BTV.gather(-1, rows["targets_BT"].long()[..., None])[..., 0]
    else:
        logp = target_logprobs(logits_BTV, rows)
    mask, advantages = rows["loss_mask_BT"], rows["advantages_B"][:, None]
    ratio = torch.exp(torch.where(mask > 0, logp - rows["old_logprobs_BT"], 0.0))
    per_token = -torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages)
    gap = torch.where(mask > 0, rows["ref_logprobs_BT"] - logp, 0.0)
    per_token = per_token + kl * (torch.exp(gap) - gap - 1.0)
    if bonus:
        per_token = per_token + bonus * (logp_BTV.exp() * logp_BTV).sum(-1)
    return (per_token * mask).sum()


class TorchSFT:
    """One update at a time.

    Args:
        request: as for `jax_train.JaxSFT`, and compile: whether torch.compile takes forward and loss.
    """

    def __init__(self, request: dict[str, Any]):
        self.dtype = request["train"]["dtype"]
        self.device = twin.set_up(self.dtype)
        self.optimizer_config, self.total = OptimizerConfig(**request["optimizer"]), request["total"]
        train, self.batches = request["train"], Path(request["batches"])
        self.accumulate = train["grad_accum"]
        self.model = twin.load(request["model"], self.device, train["remat"], self.dtype)
        self.optimizer = twin.make_optimizer(self.model, self.optimizer_config)
        self.prepare(request)

    def prepare(self, request: dict[str, Any]) -> None:
        """Sets `loss_sum`: (rows, packed) -> the summed loss of a microbatch."""
        function = torch.compile(nll_sum) if request["compile"] else nll_sum
        self.loss_sum = lambda rows, packed: function(self.model, rows, packed)

    def step(self, number: int) -> tuple[float, float, float]:
        """(loss, gradient norm, seconds) of update `number`; the clock runs until the new weights are there.

        As in our step, nothing is read back from the device before that.
        """
        arrays = read_batch(self.batches, number)
        tokens, packed = float(arrays["loss_mask_BT"].sum()), twin.is_packed(arrays["segment_ids_BT"])
        rate = learning_rate(self.optimizer_config, min(number, self.total - 1), self.total)
        began = time.perf_counter()
        loss = self.backward(arrays, tokens, packed)
        norm = twin.clip_and_norm(self.model, self.optimizer_config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        twin.synchronize(self.device)
        seconds = time.perf_counter() - began
        return float(loss) / tokens, float(norm), seconds

    def backward(self, arrays: dict[str, np.ndarray], tokens: float, packed: bool) -> torch.Tensor:
        """Gradients of the mean over the whole batch's targets, in microbatches; the targets' summed loss."""
        rows, total = twin.to_device(arrays, self.device), torch.zeros((), device=self.device)
        for micro in range(self.accumulate):
            part = {name: value[micro :: self.accumulate] for name, value in rows.items()}
            if packed:
                mine = arrays["segment_ids_BT"][twin.rank() :: twin.world_size()]
                part["starts_S"] = twin.starts(mine[micro :: self.accumulate], self.device)
            if twin.world_size() > 1:  # gradients meet once an update
                self.model.set_requires_gradient_sync(micro == self.accumulate - 1)
            with self.autocast():
                loss = self.loss_sum(part, packed)
            # FSDP averages gradients over the ranks; ours is a sum over all targets of the batch.
            (loss * (twin.world_size() / tokens)).backward()
            total += loss.detach()
        if twin.world_size() > 1:
            torch.distributed.all_reduce(total)
        return total

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 on one device; FSDP's own policy casts the weights of several."""
        alone = self.dtype == "bfloat16" and twin.world_size() == 1
        return torch.autocast(self.device.type, torch.bfloat16) if alone else contextlib.nullcontext()

    def describe(self) -> dict[str, Any]:
        """What ran."""
        return twin.describe(self.device, self.model)


class TorchGRPO(TorchSFT):
    """Reference logprobs of a minibatch from a frozen copy, then its update.

    Args:
        request: as for `TorchSFT`, and loss (a config as dict).
    """

    def prepare(self, request: dict[str, Any]) -> None:
        loss = GRPOLossConfig(**request["loss"])
        weights = (loss.clip_low, loss.clip_high, loss.kl, loss.entropy)
        self.reference = twin.load(request["model"], self.device, "none", self.dtype, frozen=True)
        policy = torch.compile(policy_sum) if request["compile"] else policy_sum
        self.reference_logprobs = torch.compile(logprobs) if request["compile"] else logprobs
        self.loss_sum = lambda rows, packed: policy(self.model, self.with_reference(rows, packed), packed, weights)

    def with_reference(self, rows: twin.Rows, packed: bool) -> twin.Rows:
        with torch.no_grad():
            return rows | {"ref_logprobs_BT": self.reference_logprobs(self.reference, rows, packed)}
