"""The PyTorch twin: transformers' own model, attention as our packing needs it, our optimizer, sharded by FSDP2.

Only processes of `twin.worker` import this; nothing else of ours needs torch.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from w2sr_jax.core.config import OptimizerConfig

Rows = dict[str, torch.Tensor]
VARLEN = "varlen"  # our name for torch.nn.attention.varlen among transformers' attention functions
NEW_VARLEN = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 12)  # must be told of grouped queries


def set_up(dtype: str) -> torch.device:
    """The device of this rank. OMP_NUM_THREADS has set the threads; several ranks meet as torchrun's do.

    Args:
        dtype: of activations.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        # As jax_train.set_precision: float32 is float32. In a bfloat16 model what stays float32 is TF32, JAX's default.
        torch.set_float32_matmul_precision("highest" if dtype == "float32" else "high")
    else:
        device = torch.device("cpu")
    if world > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def world_size() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def attention(device: torch.device, dtype: str, ours: bool = True) -> str:
    """flash-attn, which knows no float32, where it is installed, else torch's own copy of it, else its SDPA.

    SDPA takes a mask of [T, T] for packed rows, and runs all of it.

    Args:
        ours: the model is called by `logits`, which tells torch's copy where examples begin.
    """
    if device.type != "cuda" or dtype != "bfloat16":
        return "sdpa"
    if importlib.util.find_spec("flash_attn") is not None:
        return "flash_attention_2"
    return VARLEN if ours and importlib.util.find_spec("torch.nn.attention.varlen") is not None else "sdpa"


def varlen(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """torch's `varlen_attn` as transformers calls an attention function: [1, heads, tokens of all rows, H] each.

    Rows that are not packed come without `cu_seq_lens_q`, and get SDPA's causal kernel.
    """
    if (starts := options.get("cu_seq_lens_q")) is None:
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    from torch.nn.attention.varlen import varlen_attn

    # Under autocast rotated queries and keys are float32.
    q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    longest, grouped = options["max_length_q"], {"enable_gqa": True} if NEW_VARLEN else {}
    causal: dict[str, Any] = {"scale": options["scaling"], "window_size": (-1, 0)} | grouped
    out: Any = varlen_attn(q, k, v, starts, starts, longest, longest, **causal)
    return out[None], None


transformers.AttentionInterface.register(VARLEN, varlen)
transformers.AttentionMaskInterface.register(VARLEN, lambda *_, **__: None)


def load(directory: str | Path, device: torch.device, remat: str, dtype: str, frozen: bool = False) -> Any:
    """float32 master weights of a Hugging Face directory, in training mode.

    Gradient checkpointing is of whole layers, whatever remat keeps beside their inputs; "none" is none.

    Args:
        frozen: never trained, and so no finer than what a pass computes in, but for norms: as our reference.
    """
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=attention(device, dtype)
    )
    if frozen:
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.data = parameter.data.to(getattr(torch, dtype))
    if remat != "none":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train().to(device)
    return shard(model, dtype) if world_size() > 1 else model


def shard(model: Any, dtype: str) -> Any:
    """FSDP2 over all ranks: each layer gathers its weights for its turn, and the rest is one group.

    In bfloat16 the weights are cast before they are gathered, and gradients are summed in float32.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = mixed if dtype == "bfloat16" else MixedPrecisionPolicy()
    for layer in model.model.layers:
        fully_shard(layer, mp_policy=policy)
    return fully_shard(model, mp_policy=policy)


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW with the hyperparameters and the decay mask of `learn.optim`: matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.b1, config.b2), eps=config.eps, fused=True)


def to_device(arrays: dict[str, np.ndarray], device: torch.device) -> Rows:
    """This rank's rows of a batch."""
    mine = slice(rank(), None, world_size())
    return {
        name: torch.from_numpy(np.ascontiguousarray(value[mine])).to(device, non_blocking=True)
        for name, value in arrays.items()
    }


def starts(segment_ids_BT: np.ndarray, device: torch.device) -> torch.Tensor:
    """Where each example of all rows, put end to end, begins, padding counted as one; and the end.

    Filled up with empty ones, so that torch.compile sees few sizes.
    """
    B, T = segment_ids_BT.shape
    first_BT = np.diff(segment_ids_BT, axis=1, prepend=-1) != 0
    found = np.append(np.flatnonzero(first_BT), B * T)
    size = 16 * B * -(-found.size // (16 * B)) + 1
    return torch.from_numpy(np.pad(found, (0, size - found.size), mode="edge").astype(np.int32)).to(device)


def is_packed(segment_ids_BT: np.ndarray) -> bool:
    """Whether a row holds several examples. Without that, padding stands behind, where causal attention never looks."""
    return bool(segment_ids_BT.max() > 1)


def logits(model: Any, rows: Rows, packed: bool) -> torch.Tensor:
    """Logits [B, T, V] of rows that may hold several examples, none of which sees another."""
    tokens, positions = rows["tokens_BT"].long(), rows["positions_BT"].long()
    if not packed:
        return model(input_ids=tokens, use_cache=False).logits
    if model.config._attn_implementation == "flash_attention_2":
        # One long row: flash-attn finds the examples where positions start again.
        flat = model(input_ids=tokens.reshape(1, -1), position_ids=positions.reshape(1, -1), use_cache=False).logits
        return flat.reshape(*tokens.shape, -1)
    if model.config._attn_implementation == VARLEN:
        flat = model(
            input_ids=tokens.reshape(1, -1),
            position_ids=positions.reshape(1, -1),
            use_cache=False,
            cu_seq_lens_q=rows["starts_S"],
            cu_seq_lens_k=rows["starts_S"],
            max_length_q=tokens.shape[1],
            max_length_k=tokens.shape[1],
        ).logits
        return flat.reshape(*tokens.shape, -1)
    segments = rows["segment_ids_BT"]
    causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril()
    mask = (segments[:, :, None] == segments[:, None, :]) & causal
    return model(input_ids=tokens, position_ids=positions, attention_mask=mask[:, None], use_cache=False).logits


def clip_and_norm(model: nn.Module, clip_norm: float) -> torch.Tensor:
    """Clips the gradient to a global norm (0 is off) and returns the norm before; nothing waits for the device."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm > 0 else float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device, model: Any) -> dict[str, Any]:
    """Versions, devices, and the allocator's peak on a GPU."""
    cuda = device.type == "cuda"
    return {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "platform": "gpu" if cuda else "cpu",
        "settings": f"attention {model.config._attn_implementation}",
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "devices": world_size() if cuda else 1,
        "threads": torch.get_num_threads(),
        "device_peak_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
    }
