"""What the compiled step holds: never the logits of a row, and on a TPU nothing that grows with the square of a row."""

import importlib.util
import math

import jax
import pytest

from w2sr_jax.core.config import MeshConfig, OptimizerConfig, to_dict
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.core.topology import parse_topology
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.planning import hlo
from w2sr_jax.planning.child import compile_step
from w2sr_jax.planning.steps import sft_step

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
FACTS = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
LENGTH, VOCAB, CHUNK = 4096, 151936, 512
# Eight rows a chip of a model so wide that the shortest do not fit the chip's fast memory: what lives there is no
# temporary memory, and 2,048 tokens would seem to need next to none.
WIDE = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 4, "vocab_size": 1024}
WIDE_ROWS = 32


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 2, 1), (1, 1, 2)])
def test_no_buffer_of_the_compiled_step_holds_the_logits_of_a_row(sizes):
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes))), jax.devices()[:2])
    model = ModelConfig.from_hf(FACTS | {"vocab_size": VOCAB})
    train = TrainConfig(loss_chunk=CHUNK, grad_accum=2)
    text = sft_step(model, OptimizerConfig(), train, mesh, 4, LENGTH).traced.lower().compile().as_text()
    sizes_of_arrays = {math.prod(int(n) for n in dims.split(",") if n) for _, dims in hlo._ARRAY.findall(text)}
    rows = 4 // (2 * sizes[1])  # of a microbatch, on each device
    logits = rows * CHUNK * VOCAB // sizes[2]
    assert max(sizes_of_arrays) <= logits
    assert logits in sizes_of_arrays  # of a chunk: what is looked at is the step indeed


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs the plan extra")
def test_on_a_tpu_memory_grows_with_the_row_and_not_with_its_square(tmp_path):
    def compiled(length):
        request = {
            "step": "train",
            "topology": "v5e:2x2",
            "model": FACTS | WIDE,
            "mesh": {"data": 1, "fsdp": 4, "tensor": 1},
            "train": to_dict(TrainConfig(loss_chunk=CHUNK)),
            "optimizer": to_dict(OptimizerConfig()),
            "rows": WIDE_ROWS,
            "length": length,
        }
        return compile_step(request, parse_topology("v5e:2x2"), 3600, tmp_path, save_hlo=True)

    short, long = (compiled(length)["memory"]["temp_size_in_bytes"] for length in (2048, 16384))
    assert long < 8.5 * short
    assert not any("16384,16384" in path.read_text() for path in tmp_path.glob("*.hlo"))
