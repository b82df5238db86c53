"""The train steps of the paper's configs, traced at full size on 8 devices: shapes only, nothing is allocated."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks.paper_costs import FILES, experiments
from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.data.pack import Batch
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.rollout import bucket
from w2sr_jax.learn.state import abstract_state
from w2sr_jax.learn.step import RolloutBatch, make_grpo_step, make_logprob_fn, make_sft_step
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

ROOT = Path(__file__).parents[2] / "configs" / "paper"
QWEN = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "rope_theta": 1e6}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rope_theta": 5e5,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def raw(base, hidden, layers, heads, kv, ffn, vocab):
    """The sizes of a published config.json."""
    return base | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ffn,
        "vocab_size": vocab,
    }


# student -> config file, sizes, parameters in billions
STUDENTS = {
    "7b": ("qwen25.py", raw(QWEN, 3584, 28, 28, 4, 18944, 152064), 7.6),
    "14b": ("qwen25.py", raw(QWEN, 5120, 48, 40, 8, 13824, 152064), 14.8),
    "32b": ("qwen25.py", raw(QWEN, 5120, 64, 40, 8, 27648, 152064), 32.8),
    "math-7b": ("qwen25_math.py", raw(QWEN, 3584, 28, 28, 4, 18944, 152064), 7.6),
    "8b": ("llama31.py", raw(LLAMA, 4096, 32, 32, 8, 14336, 128256), 8.0),
}


@pytest.fixture(params=STUDENTS)
def student(request):
    """(nodes by name, graphdef and abstract parameters of the student, mesh of 8 devices)."""
    file, sizes, billions = STUDENTS[request.param]
    config = load_config_file(f"{ROOT / file}:{request.param}-from-1.5b")
    nodes = {node.name: node.config for node in config.nodes()}
    train = nodes["w2sr"].train
    model = nnx.eval_shape(
        lambda: Decoder(
            ModelConfig.from_hf(sizes),
            rngs=nnx.Rngs(0),
            dtype=jnp.dtype(train.dtype),
            scan_layers=train.scan_layers,
            remat=train.remat,
        )
    )
    graphdef, params = nnx.split(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == pytest.approx(1e9 * billions, rel=0.01)
    return nodes, graphdef, params, make_mesh(nodes["w2sr"].mesh)


def arrays(rows, length):
    """The five fields that SFT and GRPO batches share, as shapes."""
    whole = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    return whole, whole, jax.ShapeDtypeStruct((rows, length), jnp.float32), whole, whole


def assert_one_update(state, found):
    after, metrics = found
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, after)
    assert all(jax.tree.leaves(same))
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype("float32")}
    assert metrics["loss"].shape == ()


def test_the_sft_step_of_every_student_traces(student):
    nodes, graphdef, params, mesh = student
    config = nodes["w2sr"]
    state = abstract_state(params, make_optimizer(config.optimizer), mesh)
    batch = Batch(*arrays(config.data.batch_size, config.data.max_length))
    assert not config.data.packing  # as the data pipeline says: one example a row, for which no segments are compared
    step = make_sft_step(graphdef, config.optimizer, config.train, mesh, row_examples=1)
    assert_one_update(state, jax.eval_shape(step, state, batch, 1e-5))


def test_the_ceiling_s_update_of_every_student_traces(student):
    nodes, graphdef, params, mesh = student
    config = nodes["grpo"]
    rows, length = config.minibatch_prompts * config.sampling.n, bucket(1024 + config.sampling.max_tokens)
    logprobs = jax.ShapeDtypeStruct((rows, length), jnp.float32)
    batch = RolloutBatch(*arrays(rows, length), *[logprobs] * 3, jax.ShapeDtypeStruct((rows,), jnp.float32))
    state = abstract_state(params, make_optimizer(config.optimizer), mesh)
    step = make_grpo_step(graphdef, config.optimizer, config.loss, config.train, mesh)
    assert_one_update(state, jax.eval_shape(step, state, batch, 5e-7))
    old = jax.eval_shape(make_logprob_fn(graphdef, config.train, mesh), state.params, batch)
    assert old.shape == (rows, length)


# what makes the step of an experiment another program
def step_of(node):
    return (node.model, node.optimizer, node.train, node.data.batch_size, node.data.max_length, node.data.packing)


def test_every_experiment_s_students_take_one_of_these_steps():
    traced = set()
    for name, (file, *_) in STUDENTS.items():
        nodes = {node.name: node.config for node in load_config_file(f"{ROOT / file}:{name}-from-1.5b").nodes()}
        traced.add(repr(step_of(nodes["w2sr"])))
    for file in FILES:
        for make in experiments(file).values():
            found = {repr(step_of(node.config)) for node in make().nodes() if node.stage == "sft"}
            assert found <= traced, file
