"""The smallest models that vLLM runs, with random weights large enough to make clear choices."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from w2sr_jax.micro.tokenizer import save_tokenizer
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

CONFIG = ModelConfig(
    vocab_size=80,  # vLLM pads it to 128
    hidden_size=128,
    intermediate_size=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,  # the smallest that vLLM takes on CPU; its Qwen2 always has hidden_size / num_heads
    tie_embeddings=True,
    max_position_embeddings=256,
    eos_token_ids=(1,),
)


def make_model(seed: int, config: ModelConfig) -> Decoder:
    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    noise = np.random.default_rng(seed)

    def draw(path, leaf) -> jax.Array:
        array = noise.normal(size=leaf.shape)
        return jnp.asarray(1 + 0.1 * array if "norm" in str(path) else 0.12 * array, jnp.float32)

    nnx.update(model, jax.tree_util.tree_map_with_path(draw, nnx.state(model)))
    return model


def save_model(directory, seed: int = 0, config: ModelConfig = CONFIG) -> Decoder:
    model = make_model(seed, config)
    hf.save(model, directory, jnp.float32)
    save_tokenizer(directory, config.max_position_embeddings)
    return model
