"""PyTorch's side of the training comparison: the update of `w2sr sft`, as one writes it with transformers."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from w2sr_jax.core.config import OptimizerConfig
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


class TorchSFT:
    """Trains one step at a time.

    Args:
        request: as for `jax_sft.JaxSFT`, and compile: whether torch.compile takes forward and loss.
    """

    def __init__(self, request: dict[str, Any]):
        self.device = twin.set_up()
        self.optimizer_config, self.total = OptimizerConfig(**request["optimizer"]), request["total"]
        train, self.batches = request["train"], Path(request["batches"])
        self.accumulate, self.bfloat16 = train["grad_accum"], train["dtype"] == "bfloat16"
        self.model = twin.load(request["model"], self.device, train["remat"])
        self.optimizer = twin.make_optimizer(self.model, self.optimizer_config)
        self.nll_sum = torch.compile(nll_sum) if request["compile"] else nll_sum

    def step(self, number: int) -> tuple[float, float, float]:
        """(loss, gradient norm, seconds) of update `number`; the clock runs until the new weights are there."""
        arrays = read_batch(self.batches, number)
        tokens, packed = float(arrays["loss_mask_BT"].sum()), twin.is_packed(arrays["segment_ids_BT"])
        rate = learning_rate(self.optimizer_config, min(number, self.total - 1), self.total)
        began = time.perf_counter()
        rows = twin.to_device(arrays, self.device)
        loss = self.backward(rows, tokens, packed)
        norm = twin.clip_and_norm(self.model, self.optimizer_config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        twin.synchronize(self.device)
        return loss, norm, time.perf_counter() - began

    def backward(self, rows: twin.Rows, tokens: float, packed: bool) -> float:
        """Gradients of the mean over all ranks' targets, in microbatches; the mean itself."""
        total = torch.zeros((), device=self.device)
        for micro in range(self.accumulate):
            part = {name: value[micro :: self.accumulate] for name, value in rows.items()}
            with torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext():
                nll = self.nll_sum(self.model, part, packed)
            # FSDP averages gradients over the ranks; ours is a sum over all targets of the batch.
            (nll * (twin.world_size() / tokens)).backward()
            total += nll.detach()
        if twin.world_size() > 1:
            torch.distributed.all_reduce(total)
        return float(total) / tokens

    def describe(self) -> dict[str, Any]:
        """What ran."""
        return twin.describe(self.device)
