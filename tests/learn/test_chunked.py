"""The chunked vocabulary matmuls against dense ones."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.learn import chunked
from w2sr_jax.learn.losses import nll_sum, token_logprobs

B, T, D, V = 3, 13, 8, 29


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(D, V)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32)
    mask = jnp.asarray(rng.integers(0, 2, (B, T)), jnp.float32)
    return hidden, head, targets, mask


def dense(hidden, head, targets, temperature=1.0):
    logp = jax.nn.log_softmax(hidden @ head / temperature)
    return jnp.take_along_axis(logp, targets[..., None], -1)[..., 0], -jnp.sum(jnp.exp(logp) * logp, -1)


def relative(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize("chunk", [1, 4, 13, 512])
def test_chunked_nll_and_its_gradient_equal_the_dense_ones(inputs, chunk):
    hidden, head, targets, mask = inputs

    def chunked_mean(hidden, head):
        total, count = nll_sum(hidden, head, targets, mask, chunk)
        return total / count

    def dense_mean(hidden, head):
        return -jnp.sum(dense(hidden, head, targets)[0] * mask) / jnp.sum(mask)

    np.testing.assert_allclose(chunked_mean(hidden, head), dense_mean(hidden, head), rtol=1e-6)
    value, grads = jax.jit(jax.value_and_grad(chunked_mean, (0, 1)))(hidden, head)
    expected, dense_grads = jax.value_and_grad(dense_mean, (0, 1))(hidden, head)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for got, want in zip(grads, dense_grads):
        assert relative(got, want) < 1e-6


@pytest.mark.parametrize("chunk", [1, 4, 13, 512])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_chunked_logprobs_entropy_and_their_gradients_equal_the_dense_ones(inputs, chunk, temperature):
    hidden, head, targets, _ = inputs
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, B, T)), jnp.float32)

    def scalar(function):
        def mixed(hidden, head):
            logprobs, entropy = function(hidden, head)
            return jnp.sum(logprobs * weights[0]) + jnp.sum(entropy * weights[1])

        return mixed

    def chunked(hidden, head):
        return token_logprobs(hidden, head, targets, chunk, temperature)

    def reference(hidden, head):
        return dense(hidden, head, targets, temperature)

    for got, want in zip(chunked(hidden, head), reference(hidden, head)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    grads = jax.jit(jax.grad(scalar(chunked), (0, 1)))(hidden, head)
    for got, want in zip(grads, jax.grad(scalar(reference), (0, 1))(hidden, head)):
        assert relative(got, want) < 1e-6


def test_count_is_the_number_of_masked_targets_and_carries_no_gradient(inputs):
    hidden, head, targets, mask = inputs
    assert float(nll_sum(hidden, head, targets, mask, 4)[1]) == float(mask.sum())
    grad = jax.grad(lambda h: nll_sum(h, head, targets, mask, 4)[1])(hidden)
    assert not grad.any()


def shapes_in(jaxpr):
    """Shapes of every value in a jaxpr and in the jaxprs inside it."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval.shape
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, jax.extend.core.ClosedJaxpr)):
            if isinstance(inner, jax.extend.core.ClosedJaxpr):
                yield from shapes_in(inner.jaxpr)
            elif isinstance(inner, jax.extend.core.Jaxpr):
                yield from shapes_in(inner)


@pytest.mark.parametrize("name", ["nll", "logprobs"])
def test_the_whole_logits_never_exist_forward_or_backward(inputs, name):
    hidden, head, targets, mask = inputs

    def total(hidden, head):
        if name == "nll":
            return nll_sum(hidden, head, targets, mask, 4)[0]
        return sum(x.sum() for x in token_logprobs(hidden, head, targets, 4))

    shapes = list(shapes_in(jax.make_jaxpr(jax.grad(total, (0, 1)))(hidden, head).jaxpr))
    assert (B, 4, V) in shapes
    assert max(np.prod(s) for s in shapes if V in s) <= max(B * 4 * V, D * V)


def test_a_bf16_hidden_state_still_gives_a_float32_loss_and_head_gradient(inputs):
    hidden, head, targets, mask = inputs
    small = hidden.astype(jnp.bfloat16)
    value, (dhidden, dhead) = jax.value_and_grad(lambda h, w: nll_sum(h, w, targets, mask, 4)[0], (0, 1))(small, head)
    assert (value.dtype, dhidden.dtype, dhead.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    exact = jax.grad(lambda w: nll_sum(hidden, w, targets, mask, 4)[0])(head)
    assert relative(dhead, exact) < 0.02


def test_reducing_the_head_s_gradient_along_the_sides_of_a_square_gives_the_same(monkeypatch):
    mesh = make_mesh(MeshConfig(data=2, fsdp=4, tensor=1))
    rng = np.random.default_rng(0)
    hidden, head = (
        jnp.asarray(rng.normal(size=(8, T, D)), jnp.float32),
        jnp.asarray(rng.normal(size=(D, V)), jnp.float32),
    )
    targets, mask = jnp.asarray(rng.integers(0, V, (8, T)), jnp.int32), jnp.ones((8, T))

    def gradient(mesh):
        return jax.jit(jax.grad(lambda head: nll_sum(hidden, head, targets, mask, 4, mesh=mesh)[0]))(head)

    want = gradient(None)
    assert relative(gradient(mesh), want) < 1e-6
    monkeypatch.setattr(chunked, "_square", lambda mesh: 2)
    jax.clear_caches()
    assert relative(gradient(mesh), want) < 1e-6


def test_log_sum_exp_in_one_pass_equals_that_in_two():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 5, 151)) * rng.choice([1.0, 30.0, 1e4], size=(3, 5, 1)), jnp.float32)
    np.testing.assert_allclose(chunked._logsumexp(x), jax.nn.logsumexp(x, axis=-1), rtol=1e-6)
