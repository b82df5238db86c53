"""The decoder of Qwen2.5 and Llama: RMSNorm, grouped-query attention with rotary positions, SwiGLU.

What it holds stands in one table, `model/params.py`.
Layers are stacked ([L, ...]) and either scanned (one compiled body) or unrolled, over the same parameters.

Shapes: B batch, T time, S cache slots, D model, N query heads, K kv heads, H head dim, F ffn, V vocab, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from w2sr_jax.core.mesh import LogicalAxis, constrain, on_one_cpu
from w2sr_jax.model.attention import decode_attention
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.embedding import embed
from w2sr_jax.model.kernels.choice import attention, pick, query_scale
from w2sr_jax.model.kv_cache import Cache
from w2sr_jax.model.linear import linear
from w2sr_jax.model.params import ParamSpec, param_specs
from w2sr_jax.model.remat import INPUT, MLP, OUT, QKV, kept, with_policy
from w2sr_jax.model.rope import rope_tables, rotate

Remat = str  # a name in model/remat.py
Weights = dict[str, jax.Array]  # of one layer, by the names in `param_specs`
Tables = tuple[jax.Array, jax.Array]
PROMPT = 2  # examples of a row in prefill: padding, and the prompt
Axes = tuple[LogicalAxis, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Where a layer's activations lie on a mesh, by logical axes of [B, T, width]; None leaves it to XLA."""

    residual: Axes  # the residual stream
    normed: Axes | None  # what q, k, v, gate and up are computed from
    attended: Axes | None  # what heads have found
    hidden: Axes  # between the MLP's matmuls


# Whole rows: weights travel to the rows, which are many.
MANY_TOKENS = Layout(
    residual=("batch", "length", "act_embed"), normed=None, attended=None, hidden=("batch", "length", "act_mlp")
)
# One token a row: the rows travel to the weights, of which every chip reads no more than its own part (Pope et al.,
# 2022, "weight-stationary"). Left to XLA, each token would have all weights gathered over fsdp.
ONE_TOKEN = Layout(
    residual=("act_rows", None, "embed"),
    normed=("act_rows", None, "embed"),
    attended=("act_rows", None, "act_heads"),
    hidden=("act_rows", None, "act_mlp"),
)


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalisation over the last axis, in float32, returned in the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * scale * weight.astype(jnp.float32)).astype(x.dtype)


def qkv(
    config: ModelConfig, w: Weights, x_BTD: jax.Array, tables: Tables, mesh: Mesh | None = None, q_scale: float = 1.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [B, T, N, H] times `q_scale`, rotated keys and values [B, T, K, H] of normalised activations."""

    def project(name: str, heads: str) -> jax.Array:
        y = linear(x_BTD, w[name], w[f"{name}_bias"] if config.attention_bias else None, mesh=mesh)
        y = y.reshape(*x_BTD.shape[:2], -1, config.head_dim)
        return constrain(y, ("batch", "length", heads, None), mesh)

    q, k, v = project("q", "act_heads"), project("k", "act_kv_heads"), project("v", "act_kv_heads")
    return rotate(q, tables, q_scale), rotate(k, tables), v


def mlp(w: Weights, x_BTD: jax.Array, hidden: Axes = MANY_TOKENS.hidden, mesh: Mesh | None = None) -> jax.Array:
    """SwiGLU: down(silu(gate(x)) * up(x)), with `hidden` as where what `down` gets lies."""

    @jax.checkpoint  # computes the product again for the gradient of `down`, which costs less than to keep it
    def down(gate_BTF: jax.Array, up_BTF: jax.Array, weight: jax.Array) -> jax.Array:
        h_BTF = jax.nn.silu(gate_BTF) * up_BTF
        return linear(constrain(h_BTF, hidden, mesh), weight, mesh=mesh)

    gate_BTF, up_BTF = kept(tuple(linear(x_BTD, w[name], mesh=mesh) for name in ("gate", "up")), MLP)
    return down(gate_BTF, up_BTF, w["down"])


Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def block(
    config: ModelConfig,
    w: Weights,
    x_BTD: jax.Array,
    tables: Tables,
    attend: Attend,
    mesh: Mesh | None = None,
    q_scale: float = 1.0,
    layout: Layout = MANY_TOKENS,
) -> jax.Array:
    """One pre-norm layer; `attend(q, k, v)`, with queries times `q_scale`, is what differs between its uses."""

    def place(x: jax.Array, axes: Axes | None) -> jax.Array:
        return x if axes is None else constrain(x, axes, mesh)

    def norm(name: str) -> jax.Array:
        return place(rms_norm(x_BTD, w[name], config.rms_norm_eps), layout.normed)

    x_BTD = kept(x_BTD, INPUT)
    q, k, v = kept(qkv(config, w, norm("input_norm"), tables, mesh, q_scale), QKV)
    heads_BTX = place(attend(q, k, v).reshape(*x_BTD.shape[:2], -1), layout.attended)
    # Without these XLA may leave the residual stream split along D, and gather it in every layer.
    x_BTD = place(x_BTD + kept(linear(heads_BTX, w["o"], mesh=mesh), OUT), layout.residual)
    return place(x_BTD + mlp(w, norm("post_norm"), layout.hidden, mesh), layout.residual)


class Decoder(nnx.Module):
    """A causal language model up to its last norm; `logits` or `head` finish it.

    Args:
        config: sizes.
        rngs: its `params` stream initialises the weights.
        dtype: of activations and matmuls. Norms, softmax, rotations and logits are float32 whatever it is.
        param_dtype: of the stored parameters.
        scan_layers: one compiled layer body; False unrolls (faster on CPU, slower to compile).
        remat: what is kept for the backward pass, see model/remat.py.
        attention: the form of attention over whole rows, see model/kernels/choice.py.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        scan_layers: bool = True,
        remat: Remat = "none",
        attention: str = "auto",
    ):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.scan_layers, self.remat, self.attention = scan_layers, remat, attention
        outer, layer = param_specs(config)

        def create(spec: ParamSpec) -> nnx.Param:
            if spec.std is None:
                value = jnp.full(spec.shape, spec.constant, param_dtype)
            else:
                value = (jax.random.normal(rngs.params(), spec.shape) * spec.std).astype(param_dtype)
            return nnx.Param(value, logical_axes=spec.axes)

        self.embed, self.norm = create(outer["embed"]), create(outer["norm"])
        if not config.tie_embeddings:
            self.lm_head = create(outer["lm_head"])
        self.layers = nnx.Dict({name: create(spec) for name, spec in layer.items()})

    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None = None,
        segment_ids_BT: jax.Array | None = None,
        *,
        mesh: Mesh | None = None,
        row_examples: int = 0,
    ) -> jax.Array:
        """Hidden states [B, T, D] after the last norm.

        Args:
            tokens_BT: int token ids.
            positions_BT: rotary positions; default 0..T-1.
            segment_ids_BT: 0 is padding; tokens attend within their own segment. Default: one segment a row.
            mesh: keeps activations where core/mesh.py says; B must split over its data axes.
            row_examples: the most that a row has, padding counted as one, for kernels that ask; 0 is not known.
        """
        x_BTD, tables = self._begin(tokens_BT, positions_BT, mesh)
        attend, q_scale = self._attend(tokens_BT.shape, segment_ids_BT, mesh, row_examples)
        x_BTD, _ = self._run(lambda x, w: (block(self.config, w, x, tables, attend, mesh, q_scale), None), x_BTD)
        return rms_norm(x_BTD, self.norm[...], self.config.rms_norm_eps)

    def prefill(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, segment_ids_BT: jax.Array, *, mesh: Mesh | None = None
    ) -> Cache:
        """Keys and values of prompts, in T slots; arguments as of a call."""
        x_BTD, tables = self._begin(tokens_BT, positions_BT, mesh)
        attend, q_scale = self._attend(tokens_BT.shape, segment_ids_BT, mesh, PROMPT)

        def body(x: jax.Array, w: Weights) -> tuple[jax.Array, Cache]:
            made: list[Cache] = []

            def attend_and_keep(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
                made.append(Cache(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)))
                return attend(q, k, v)

            return block(self.config, w, x, tables, attend_and_keep, mesh, q_scale), made[0]

        return self._run(body, x_BTD)[1]

    def decode(
        self,
        tokens_B: jax.Array,
        cache: Cache,
        first_B: jax.Array,
        slot: jax.Array,
        *,
        mesh: Mesh | None = None,
    ) -> tuple[jax.Array, Cache]:
        """One token more for every row: (float32 logits [B, V] of the next one, cache with this one).

        Args:
            cache: stacked; slots first..slot-1 of each row hold its past.
            first_B: the slot of each row's position 0.
            slot: where the token goes, in every row.
        """
        x_B1D, tables = self._begin(tokens_B[:, None], (slot - first_B)[:, None], mesh)

        # The whole cache is the loop's carry and each layer writes its slot in place: as a scanned-over input and
        # output it would be copied at every step.
        def body(carry: tuple[Any, ...], w: Weights) -> tuple[Any, None]:
            x, k_all, v_all, layer = carry

            def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
                nonlocal k_all, v_all
                k_1BKH1, v_1BK1H = k.transpose(1, 0, 2, 3)[..., None], v.transpose(1, 0, 2, 3)[..., None, :]
                k_all = jax.lax.dynamic_update_slice(k_all, k_1BKH1.astype(k_all.dtype), (layer, 0, 0, 0, slot))
                v_all = jax.lax.dynamic_update_slice(v_all, v_1BK1H.astype(v_all.dtype), (layer, 0, 0, slot, 0))
                keys, values = (jax.lax.dynamic_index_in_dim(x, layer, keepdims=False) for x in (k_all, v_all))
                out_BNH = decode_attention(q[:, 0], keys.astype(q.dtype), values.astype(q.dtype), first_B, slot)
                return out_BNH[:, None]

            return (block(self.config, w, x, tables, attend, mesh, layout=ONE_TOKEN), k_all, v_all, layer + 1), None

        x_B1D = constrain(x_B1D, ONE_TOKEN.residual, mesh)
        (x_B1D, k, v, _), _ = self._run(body, (x_B1D, cache.k, cache.v, jnp.int32(0)))
        hidden_B1D = rms_norm(x_B1D, self.norm[...], self.config.rms_norm_eps)
        hidden_BD = constrain(hidden_B1D, ONE_TOKEN.residual, mesh)[:, 0]  # or the head would be gathered
        return constrain(self.logits(hidden_BD), ("batch", "act_vocab"), mesh), Cache(k, v)

    def _begin(
        self, tokens_BT: jax.Array, positions_BT: jax.Array | None, mesh: Mesh | None
    ) -> tuple[jax.Array, Tables]:
        """Embedded tokens, and the rotations of their positions."""
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        x_BTD = embed(self.embed[...], tokens_BT, self.dtype, mesh)
        tables = rope_tables(self.config, positions_BT)
        if on_one_cpu(mesh):  # where XLA computes them again for every layer
            tables = jax.lax.optimization_barrier(tables)
        return constrain(x_BTD, ("batch", "length", "act_embed"), mesh), tables

    def _attend(
        self, shape: tuple[int, ...], segment_ids_BT: jax.Array | None, mesh: Mesh | None, row_examples: int = 0
    ) -> tuple[Attend, float]:
        """Attention over whole rows [B, T], and what its queries are to be multiplied with."""
        config, row_examples = self.config, 1 if segment_ids_BT is None else row_examples
        q_shape = (*shape, config.num_heads, config.head_dim)
        form = pick(self.attention, q_shape, config.num_kv_heads, mesh, self.dtype, row_examples)
        scale = query_scale(form, config.head_dim)
        options: dict[str, Any] = {"form": form, "q_scaled": scale != 1.0, "mesh": mesh, "row_examples": row_examples}
        return functools.partial(attention, segment_ids_BT=segment_ids_BT, **options), scale

    def _run(self, body: Callable[[Any, Weights], tuple[Any, Any]], carry: Any) -> tuple[Any, Any]:
        """Folds `body` over the layers; as `jax.lax.scan`."""
        body = with_policy(body, self.remat, scanned=self.scan_layers)
        weights = {name: param[...] for name, param in self.layers.items()}
        return jax.lax.scan(body, carry, weights, unroll=1 if self.scan_layers else self.config.num_layers)

    def param(self, name: str) -> nnx.Param:
        """The parameter of that name in `param_specs`."""
        if name in self.layers:
            return self.layers[name]
        return self.lm_head if name == "lm_head" else self.embed if name == "embed" else self.norm

    def head(self) -> jax.Array:
        """The output projection [D, V] in the parameters' dtype; the embedding transposed where the two are tied."""
        return self.embed[...].T if self.config.tie_embeddings else self.lm_head[...]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Float32 logits [..., V] of hidden states [..., D]."""
        return jnp.matmul(hidden, self.head().astype(hidden.dtype), preferred_element_type=jnp.float32)
