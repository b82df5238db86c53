"""TRL's SFTTrainer on the same problems and traces, as its users run it: its own order, batches and loop."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import datasets
import torch
import transformers
import trl

from w2sr_jax.core.config import DataConfig, OptimizerConfig
from w2sr_jax.data import chat
from w2sr_jax.data.examples import read_traces
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.twin import torch_model as twin


class TrlSFT(transformers.TrainerCallback):
    """Lets the trainer go on by one update at a time.

    The trainer runs in a thread of its own and waits before each update until it is asked for.

    Args:
        request: as for `jax_train.JaxSFT`, and data (a config as dict), directory (where the trainer may write).
    """

    def __init__(self, request: dict[str, Any]):
        self.device = twin.set_up(request["train"]["dtype"])
        self._asked = threading.Semaphore(0)
        self._done: queue.Queue[tuple[float, float, float] | BaseException] = queue.Queue()
        self._began = self._seconds = 0.0
        self.tokens = list[float]()  # seen by the model until the end of each update, padding excluded
        datasets.disable_caching()
        datasets.disable_progress_bars()
        self.trainer = trl.SFTTrainer(
            model=request["model"],
            args=arguments(request, self.device),
            train_dataset=pairs(DataConfig(**request["data"]), request["model"]),
            processing_class=chat.load_tokenizer(request["model"]),
            callbacks=[self],
        )
        threading.Thread(target=self._train, daemon=True).start()

    def step(self, number: int) -> tuple[float, float, float]:
        """(loss, gradient norm, seconds) of the next update; the trainer counts for itself."""
        self._asked.release()
        found = self._done.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._asked.acquire()
        twin.synchronize(self.device)
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        twin.synchronize(self.device)
        self._seconds = time.perf_counter() - self._began

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "grad_norm" in logs:  # of an update, not of the whole run
            self.tokens.append(float(logs["num_tokens"]))
            self._done.put((float(logs["loss"]), float(logs["grad_norm"]), self._seconds))

    def _train(self) -> None:
        try:
            self.trainer.train()
        except BaseException as error:
            self._done.put(error)

    def describe(self) -> dict[str, Any]:
        """What ran, and how many tokens an update had on average."""
        about = twin.describe(self.device, self.trainer.model) | {
            "tokens": self.tokens[-1] / len(self.tokens) if self.tokens else None
        }
        return about | {"versions": about["versions"] | {"trl": trl.__version__}}


def pairs(config: DataConfig, model: str) -> datasets.Dataset:
    """Prompt and completion of every trace, as texts."""
    tokenizer = chat.load_tokenizer(model)
    problems = {one.id: one.problem for one in load_problems(config.problems)}
    traces = read_traces(config.traces)
    prompts = [chat.render(config.template, problems[trace.problem_id], tokenizer) for trace in traces]
    return datasets.Dataset.from_dict({"prompt": prompts, "completion": [trace.response for trace in traces]})


def arguments(request: dict[str, Any], device: torch.device) -> trl.SFTConfig:
    """TRL's settings for the same training."""
    optimizer, train, total = OptimizerConfig(**request["optimizer"]), request["train"], request["total"]
    data, bfloat16 = request["data"], request["train"]["dtype"] == "bfloat16"
    return trl.SFTConfig(
        output_dir=request["directory"],
        model_init_kwargs={
            "dtype": "float32",
            "attn_implementation": twin.attention(device, request["train"]["dtype"], ours=False),
        },
        max_steps=total,
        per_device_train_batch_size=max(1, data["batch_size"] // (train["grad_accum"] * twin.world_size())),
        gradient_accumulation_steps=train["grad_accum"],
        max_length=data["max_length"],
        packing=data["packing"],
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type=optimizer.schedule,
        warmup_steps=round(optimizer.warmup_ratio * total),
        adam_beta1=optimizer.b1,
        adam_beta2=optimizer.b2,
        adam_epsilon=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.clip_norm,
        optim="adamw_torch_fused",
        bf16=bfloat16,
        gradient_checkpointing=train["remat"] != "none",
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=data["seed"],
    )
