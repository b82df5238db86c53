"""Generation by transformers: `generate`, as its users call it, on a padded batch."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers

from w2sr_jax.twin import torch_model as twin
from w2sr_jax.twin.engines import batches


class TorchGenerate:
    """Answers the prompts of a request in `engines.batches`.

    Args:
        request: as for `engines.JaxGenerate`.
    """

    def __init__(self, request: dict[str, Any]):
        self.device = twin.set_up(request["dtype"])
        self.prompts, self.batch, self.loads = request["prompts"], request["batch"], request["loads"]
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            request["model"], dtype=getattr(torch, request["dtype"]), attn_implementation="sdpa"
        )
        self.model.generation_config.eos_token_id = None  # an answer ends at its limit alone
        self.model.eval().to(self.device)

    def generate(self, name: str) -> tuple[list[list[int]], float]:
        """(every answer's tokens, seconds)."""
        began = time.perf_counter()
        count = self.loads[name]["prompts"]
        answers: list[list[int]] = [[] for _ in range(count)]
        for places in batches(self.prompts[:count], self.batch):
            for place, answer in zip(places, self._answer(places, self.loads[name]), strict=True):
                answers[place] = answer
        twin.synchronize(self.device)
        return answers, time.perf_counter() - began

    def _answer(self, places: list[int], load: dict[str, Any]) -> list[list[int]]:
        prompts = [self.prompts[place] for place in places]
        limits = [load["limits"][place] if "limits" in load else load["max_tokens"] for place in places]
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        sampled = {"do_sample": True, "temperature": load["temperature"], "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            found = self.model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=max(limits),
                pad_token_id=0,
                **(sampled if load["temperature"] else {"do_sample": False}),
            )
        return [row[:limit] for row, limit in zip(found[:, width:].tolist(), limits, strict=True)]

    def describe(self) -> dict[str, Any]:
        """What ran."""
        return twin.describe(self.device, self.model)
