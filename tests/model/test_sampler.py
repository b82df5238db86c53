"""The decode loop against forward passes without a cache, and what is compiled."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.model.test_token_choice import expected_probs
from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.mesh import make_mesh, sharding
from w2sr_jax.model import buckets, decode_loop, kv_cache, sampler
from w2sr_jax.model.buckets import ON_CPU, cache_bucket
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.model.sampler import Sampler

BASE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}
CONFIGS = {
    "qwen2-tied-2-groups": ModelConfig(**BASE | {"tie_embeddings": True}),
    "qwen2-7-groups": ModelConfig(**BASE | {"num_heads": 7, "num_kv_heads": 1, "num_layers": 3}),
    "llama-no-groups": ModelConfig(**BASE | {"family": "llama", "attention_bias": False, "num_kv_heads": 4}),
}
WEIGHT_STD = 0.2
PROMPTS = [[5], [7, 8, 9], list(range(10, 24)), [1, 2, 3, 4, 5, 6, 7, 8]]


def make_model(config: ModelConfig, seed: int = 0, **options) -> Decoder:
    """Random weights far enough from zero that predictions are sharp and vary from one position to the next."""
    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), **options))
    noise = np.random.default_rng(seed)

    def draw(path, leaf) -> jax.Array:
        array = noise.normal(size=leaf.shape, scale=0.1)
        return jnp.asarray(array + 1 if "norm" in str(path) else array / 0.1 * WEIGHT_STD, jnp.float32)

    nnx.update(model, jax.tree_util.tree_map_with_path(draw, nnx.state(model)))
    return model


def run(model: Decoder, prompts, *, streams=None, batch=None, copies=1, mesh=None, max_tokens=16, limits=(), **options):
    defaults = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "stop_token_ids": ()}
    streams = streams or [(row // copies, row % copies) for row in range(len(prompts) * copies)]
    sampler = Sampler(model.config, model.dtype, mesh=mesh)
    return sampler.sample(
        sampler.prepare(nnx.state(model)),
        prompts,
        streams,
        limits or [max_tokens] * len(streams),
        batch=batch or max(4, len(prompts)),
        copies=copies,
        **defaults | options,
    )


@nnx.jit
def all_logprobs(model: Decoder, tokens_1T: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(model.logits(model(tokens_1T)))[0]


def forward_logprobs(model: Decoder, prompt: list[int], completion: list[int]) -> np.ndarray:
    """[len(completion), V] log-probabilities from one causal forward pass without a cache."""
    tokens = prompt + completion
    padded = np.array([tokens + [0] * (-len(tokens) % 128)])
    return np.asarray(all_logprobs(model, padded))[len(prompt) - 1 : len(tokens) - 1]


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return make_model(CONFIGS[request.param])


@pytest.fixture(scope="module")
def small():
    return make_model(CONFIGS["qwen2-tied-2-groups"])


def test_greedy_tokens_and_logprobs_equal_a_forward_pass_without_cache_at_every_position(model):
    rows = run(model, PROMPTS)
    for prompt, row in zip(PROMPTS, rows):
        logprobs = forward_logprobs(model, prompt, row.token_ids)
        assert row.token_ids == logprobs.argmax(-1).tolist()
        np.testing.assert_allclose(row.logprobs, logprobs.max(-1), atol=1e-4)
    assert len({tuple(row.token_ids) for row in rows}) == len(rows)
    assert len(set(rows[0].token_ids)) > 3, "a constant prediction would prove little"


def test_sampled_logprobs_are_those_of_the_plain_softmax(small):
    rows = run(small, PROMPTS, temperature=0.7, top_p=0.9, top_k=20)
    for prompt, row in zip(PROMPTS, rows):
        logprobs = forward_logprobs(small, prompt, row.token_ids)
        np.testing.assert_allclose(row.logprobs, logprobs[np.arange(16), row.token_ids], atol=1e-4)


def test_a_cache_that_grows_on_the_way_changes_nothing(small, monkeypatch):
    monkeypatch.setattr(buckets, "ON_CPU", ON_CPU._replace(cache=lambda slots: cache_bucket(slots + 1)))
    (row,) = run(small, [PROMPTS[1]], max_tokens=40)
    assert row.token_ids == forward_logprobs(small, PROMPTS[1], row.token_ids).argmax(-1).tolist()
    assert len(row.token_ids) == 40


def test_training_options_of_the_model_do_not_matter(small):
    other = Decoder(small.config, rngs=nnx.Rngs(0), scan_layers=False, remat="full")
    nnx.update(other, nnx.state(small))
    expected = run(small, PROMPTS)
    with count_compilations() as compiled:
        assert run(other, PROMPTS) == expected
    assert compiled() == 0


def test_whole_completions_follow_the_model_at_every_step(small):
    # Two sampled tokens from one prompt: the joint frequencies of the pair against the product of forward passes.
    copies, batches = 256, 8
    pairs = np.zeros((61, 61))
    for seed in range(batches):
        streams = [(seed, sample) for sample in range(copies)]
        for row in run(
            small, [PROMPTS[1]], streams=streams, batch=1, copies=copies, max_tokens=2, temperature=1.0, top_k=3
        ):
            pairs[tuple(row.token_ids)] += 1
    first = expected_probs(forward_logprobs(small, PROMPTS[1], [0])[0], 1.0, 1.0, 3)
    expected = np.zeros_like(pairs)
    for token in np.flatnonzero(first):
        second = expected_probs(forward_logprobs(small, PROMPTS[1], [int(token), 0])[1], 1.0, 1.0, 3)
        expected[token] = first[token] * second * copies * batches
    assert pairs[expected == 0].sum() == 0
    chi_square = ((pairs - expected)[expected > 0] ** 2 / expected[expected > 0]).sum()
    assert chi_square < 26.12, "the 99.9 % point with 8 degrees of freedom"


def test_a_random_stream_depends_on_seed_and_sample_alone(small):
    options = {"temperature": 1.0, "max_tokens": 8}
    streams = [(2**40 + 3, 0), (11, 1), (11, 0), (2**40 + 4, 0)]
    together = run(small, PROMPTS, streams=streams, **options)
    backwards = run(small, PROMPTS[::-1], streams=streams[::-1], batch=8, **options)[::-1]
    for prompt, stream, row, other in zip(PROMPTS, streams, together, backwards):
        assert row.token_ids == other.token_ids
        assert row.token_ids == run(small, [prompt], streams=[stream], **options)[0].token_ids
    changed = run(small, [PROMPTS[0]] * 4, streams=[(2**40 + 3, 0), (2**40 + 3, 1), (3, 0), (2**40, 0)], **options)
    assert len({tuple(row.token_ids) for row in changed}) == 4


def test_copies_share_a_prefill_and_equal_separate_rows(small):
    streams = [(prompt, sample) for prompt in range(4) for sample in range(3)]
    shared = run(small, PROMPTS, streams=streams, copies=3, temperature=1.0)
    separate = run(small, [p for p in PROMPTS for _ in range(3)], streams=streams, temperature=1.0)
    assert [row.token_ids for row in shared] == [row.token_ids for row in separate]


def test_a_stop_id_ends_its_row_only_and_stays_in_the_tokens(small):
    free = run(small, PROMPTS)
    stop = free[2].token_ids[4]
    for row, unstopped in zip(run(small, PROMPTS, stop_token_ids=(stop, 60, 59)), free):
        ends = [i for i, token in enumerate(unstopped.token_ids) if token in (stop, 60, 59)]
        assert row.stopped == bool(ends)
        assert row.token_ids == unstopped.token_ids[: ends[0] + 1 if ends else None]
        assert len(row.logprobs) == len(row.token_ids)


def test_the_loop_ends_when_all_rows_have_stopped_and_dummies_never_hold_it_up(small, monkeypatch):
    # Three prompts in a batch of four.
    states = record_decodes(monkeypatch)
    free = run(small, PROMPTS[:3])
    stops = tuple(row.token_ids[2] for row in free)
    rows = run(small, PROMPTS[:3], stop_token_ids=stops)
    assert all(row.stopped and len(row.token_ids) <= 3 for row in rows)
    assert int(states[-1]) <= 16 + 3, "slots written: the prompt bucket and at most three tokens"
    assert len(states) == 2


def record_decodes(monkeypatch) -> list[int]:
    """The slot that each call of the decode loop reaches."""
    slots, decode = [], decode_loop.decode

    def recorded(*args, **options):
        state = decode(*args, **options)
        slots.append(int(state.slot))
        return state

    monkeypatch.setattr(decode_loop, "decode", recorded)
    return slots


LADDER = [[1 + i % 60, 3, 1 + 7 * i % 60] * (1 + i % 5) for i in range(30)]


@pytest.mark.parametrize(("copies", "tile"), [(1, 64), (3, 64), (1, 8), (3, 16)])
def test_rows_that_are_done_are_filled_again_and_nothing_else_changes(small, monkeypatch, copies, tile):
    """Sixty prompts of unequal lengths through a batch of eight, in a cache that must be moved and grown."""
    monkeypatch.setattr(kv_cache, "TILE", tile)  # 64 are more than this cache has at first: no tiles
    monkeypatch.setattr(buckets, "ON_CPU", ON_CPU._replace(cache=lambda slots: cache_bucket(slots + 1)))
    prompts = sorted(2 * LADDER, key=len, reverse=True)
    streams = [(100 + prompt, sample) for prompt in range(len(prompts)) for sample in range(copies)]
    options = {"temperature": 1.3, "stop_token_ids": tuple(range(7)), "max_tokens": 30, "copies": copies}
    slots, told = record_decodes(monkeypatch), []
    rows = run(small, prompts, streams=streams, batch=8, on_row=lambda index, row: told.append((index, row)), **options)
    assert sorted(index for index, _ in told) == list(range(len(prompts) * copies))
    assert all(rows[index] is row for index, row in told)
    assert any(later < earlier for earlier, later in itertools.pairwise(slots)), "the cache was moved"
    lengths = [len(row.token_ids) for row in rows]
    assert min(lengths) == 1
    assert max(lengths) > 8
    for index in range(0, len(prompts), 13):
        part = slice(index * copies, (index + 1) * copies)
        alone = run(small, [prompts[index]], streams=streams[part], **options)
        assert [row.token_ids for row in alone] == [row.token_ids for row in rows[part]]
        for one, other in zip(alone, rows[part]):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


@pytest.mark.parametrize(("smaller", "sizes"), [(lambda n: n // 4, {8, 2}), (ON_CPU.smaller, {24, 16, 8, 4, 2, 1})])
def test_the_last_rows_go_on_in_smaller_batches_and_nothing_else_changes(small, monkeypatch, smaller, sizes):
    options = {"temperature": 1.3, "stop_token_ids": tuple(range(5)), "max_tokens": 60}
    streams = [(7 + index, 0) for index in range(len(LADDER))]
    prompts = sorted(LADDER, key=len, reverse=True)
    expected = run(small, prompts, streams=streams, batch=32, **options)
    found, narrow = [], decode_loop.narrow
    monkeypatch.setattr(decode_loop, "narrow", lambda state, rows: found.append(len(rows)) or narrow(state, rows))
    monkeypatch.setattr(sampler, "LONG", 60)
    monkeypatch.setattr(buckets, "ON_CPU", ON_CPU._replace(smaller=smaller))
    rows = run(small, prompts, streams=streams, batch=32, **options)
    assert found == sorted(set(found), reverse=True)
    assert set(found) <= sizes
    assert found[-1] == min(sizes)
    assert [row.token_ids for row in rows] == [row.token_ids for row in expected]
    for one, other in zip(rows, expected):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_every_row_ends_at_its_own_limit(small):
    limits = [1, 9, 16, 4]
    whole, rows = run(small, PROMPTS), run(small, PROMPTS, limits=limits, batch=2)
    assert [row.token_ids for row in rows] == [row.token_ids[:limit] for row, limit in zip(whole, limits)]
    assert not any(row.stopped for row in rows)


def test_one_token_is_the_least_that_is_sampled(small):
    assert [len(row.token_ids) for row in run(small, PROMPTS, max_tokens=1)] == [1] * 4


class count_compilations:
    """Counts every program that XLA compiles inside the block, however small."""

    def __enter__(self):
        self._count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return lambda: self._count

    def _listen(self, event: str, _seconds: float, **_: object) -> None:
        self._count += event == "/jax/core/compile/backend_compile_duration"

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


def test_nothing_is_compiled_again_for_other_prompts_limits_stop_ids_or_weights(small):
    with count_compilations() as compiled:
        jax.jit(lambda x: x * 2 + len("a program of its own"))(np.zeros(3))
    assert compiled() == 1, "the counter counts"
    run(small, PROMPTS)
    weights = [make_model(small.config, seed) for seed in (2, 3)]
    with count_compilations() as compiled:
        for length, model in ((1, small), (9, weights[0]), (17, weights[1])):
            run(model, [[1] * length, [3] * 2, [4]], max_tokens=7 + length % 3, stop_token_ids=(4,))
            run(model, [[2] * length] * 4, max_tokens=16, temperature=0.3, top_p=0.5, top_k=length)
    assert compiled() == 0


EVEN = ModelConfig(**BASE | {"tie_embeddings": True, "vocab_size": 64})


def on_mesh(data: int, fsdp: int, tensor: int):
    """(the EVEN model on a mesh of so many devices, the mesh)."""
    mesh, model = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor)), make_model(EVEN)
    for _, param in nnx.to_flat_state(nnx.state(model)):
        param.set_value(jax.device_put(param[...], sharding(param.logical_axes, param.shape, mesh)))
    return model, mesh


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 2, 4)], ids=["kv-heads-split", "kv-heads-replicated"])
def test_a_mesh_gives_the_same_tokens(sizes):
    sharded, mesh = on_mesh(*sizes)
    alone, spread = run(make_model(EVEN), PROMPTS), run(sharded, PROMPTS, mesh=mesh)
    assert [row.token_ids for row in spread] == [row.token_ids for row in alone]
    np.testing.assert_allclose([r.logprobs for r in spread], [r.logprobs for r in alone], atol=1e-4)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 4, 1)])
def test_on_a_mesh_rows_are_filled_again_and_nothing_is_compiled_twice(monkeypatch, sizes):
    """The LADDER, two samples of each prompt, through rows for eight prompts."""
    sharded, mesh = on_mesh(*sizes)
    prompts = sorted(LADDER, key=len, reverse=True)
    options = {"temperature": 1.3, "stop_token_ids": tuple(range(7)), "max_tokens": 30, "batch": 8, "copies": 2}
    alone, slots = run(make_model(EVEN), prompts, **options), record_decodes(monkeypatch)
    spread = run(sharded, prompts, mesh=mesh, **options)
    assert len(slots) > 1 + len(prompts) // 8  # one batch after another: four
    assert [row.token_ids for row in spread] == [row.token_ids for row in alone]
    for one, other in zip(spread, alone):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    with count_compilations() as compiled:
        run(sharded, prompts, mesh=mesh, **options)
    assert compiled() == 0
