"""Seconds to compile the SFT step at 8 and at 64 layers: `python -m benchmarks.compile_time [TOPOLOGY]`.

The layers are scanned, so that depth should cost next to nothing. cpu:4 is the default; v5e:2x2 and its like take the
plan extra. A compilation of two layers comes first and is not shown. Each is a process of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from w2sr_jax.core.config import OptimizerConfig, to_dict
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.core.topology import parse_topology
from w2sr_jax.planning.child import compile_step

LAYERS = (2, 8, 64)
SIZES: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 32768,
    "tie_word_embeddings": True,
}


def main(name: str) -> None:
    """Compiles and prints a table."""
    topology = parse_topology(name)
    seconds = {}
    for layers in LAYERS:
        request = {
            "step": "train",
            "topology": name,
            "model": SIZES | {"num_hidden_layers": layers},
            "mesh": {"data": 1, "fsdp": topology.devices, "tensor": 1},
            "train": to_dict(TrainConfig()),
            "optimizer": to_dict(OptimizerConfig()),
            "rows": topology.devices,
            "length": 2048,
        }
        with tempfile.TemporaryDirectory() as kept:
            found = compile_step(request, topology, 3600.0, Path(kept))
        seconds[layers] = found["compile_seconds"]
    print("| layers | compiled in, s |\n|---|---|")
    for layers in LAYERS[1:]:
        print(f"| {layers} | {seconds[layers]:.1f} |")
    print(f"64 layers take {seconds[64] / seconds[8]:.2f} times as long as 8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu:4")
