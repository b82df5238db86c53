"""The loss curve of 20 SFT steps, as it was when it was last looked at.

A change of numerics on purpose: `JAX_PLATFORMS=cpu python tests/learn/test_golden.py` writes the curve again, and the
commit says why.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
from flax import nnx

from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.learn.optim import learning_rate, make_optimizer
from w2sr_jax.learn.state import init_state
from w2sr_jax.learn.step import RolloutBatch, make_sft_step
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

GOLDEN = Path(__file__).parent.parent / "golden" / "sft_loss.json"
STEPS, ROWS, LENGTH, VOCAB = 20, 8, 24, 48


def random_weights(params):
    """Weights by numpy: jax's random streams may change between versions."""
    rng = np.random.default_rng(5)

    def draw(param):
        noise = rng.normal(0, 0.1, param.shape).astype(np.float32)
        matrix = len([a for a in param.get_metadata("logical_axes") if a != "layers"]) > 1
        return param.replace(jax.numpy.asarray(noise if matrix else param.get_value() + noise))

    return jax.tree.map(draw, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def packed(rng):
    """Rows of counting sequences (something to learn), packed to random lengths, loss on their second halves."""
    tokens, targets = np.zeros((2, ROWS, LENGTH), np.int32)
    mask, (segments, positions) = np.zeros((ROWS, LENGTH), np.float32), np.zeros((2, ROWS, LENGTH), np.int32)
    for row in range(ROWS):
        begin, segment = 0, 1
        while LENGTH - begin >= 6:
            size = int(rng.integers(4, 11))
            size = min(size, LENGTH - begin)
            sequence = (rng.integers(VOCAB) + rng.integers(1, 4) * np.arange(size + 1)) % VOCAB
            here = slice(begin, begin + size)
            tokens[row, here], targets[row, here] = sequence[:-1], sequence[1:]
            segments[row, here], positions[row, here] = segment, np.arange(size)
            mask[row, begin + size // 2 : begin + size] = 1
            begin, segment = begin + size, segment + 1
    zeros = np.zeros((ROWS, LENGTH), np.float32)
    return RolloutBatch(tokens, targets, mask, positions, segments, zeros, zeros, zeros, np.zeros(ROWS, np.float32))


def curve():
    model = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        tie_embeddings=True,
    )
    graphdef, params = nnx.split(Decoder(model, rngs=nnx.Rngs(0)))
    optimizer = OptimizerConfig(learning_rate=1e-2, weight_decay=0.01)
    step = make_sft_step(graphdef, optimizer, TrainConfig(dtype="float32", loss_chunk=10, grad_accum=2))
    state, rng = init_state(random_weights(params), make_optimizer(optimizer)), np.random.default_rng(11)
    seen = SimpleNamespace(loss=[], grad_norm=[])
    for count in range(STEPS):
        state, metrics = step(state, packed(rng), learning_rate(optimizer, count, STEPS))
        seen.loss.append(float(metrics["loss"]))
        seen.grad_norm.append(float(metrics["grad_norm"]))
    return vars(seen)


def test_twenty_sft_steps_follow_the_golden_curve():
    golden, now = json.loads(GOLDEN.read_text()), curve()
    assert now["loss"][-1] < 0.7 * now["loss"][0]
    np.testing.assert_allclose(now["loss"], golden["loss"], rtol=1e-4)
    np.testing.assert_allclose(now["grad_norm"], golden["grad_norm"], rtol=1e-3)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({k: [float(f"{x:.8g}") for x in v] for k, v in curve().items()}, indent=1) + "\n")
