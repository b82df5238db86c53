"""The JAX engine as stages use it: texts in, completions out, weights exchanged; and against transformers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.engine.base import Completion, Sampling, request_seeds
from w2sr_jax.engine.jax_engine import JaxEngine, plan_batch
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

ALPHABET = "0123456789+-*=?;ABCDEFGHIJ"
CONFIG = ModelConfig(
    vocab_size=len(ALPHABET) + 2,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    tie_embeddings=True,
    max_position_embeddings=64,
    eos_token_ids=(1,),
)
PROMPTS = ["1+2=?", "7", "A;B;C;D;", "9*9", "55+5=?"]
GREEDY = Sampling(max_tokens=10)


def make_model(seed: int = 0, config: ModelConfig = CONFIG) -> Decoder:
    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    noise = np.random.default_rng(seed)

    def draw(path, leaf) -> jax.Array:
        array = noise.normal(size=leaf.shape)
        return jnp.asarray(1 + 0.1 * array if "norm" in str(path) else 0.2 * array, jnp.float32)

    nnx.update(model, jax.tree_util.tree_map_with_path(draw, nnx.state(model)))
    return model


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["<pad>", "<eos>", *ALPHABET])}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture(scope="module")
def engine(tokenizer):
    return JaxEngine.from_model(make_model(), tokenizer, batch_size=4)


def test_completions_come_in_the_order_of_the_prompts_and_each_is_announced_once(engine, tokenizer):
    told = {}
    groups = engine.generate(PROMPTS, GREEDY, on_finished=lambda *call: told.update({call[:2]: call[2]}))
    assert told == {(i, 0): group[0] for i, group in enumerate(groups)}
    for prompt, (completion,) in zip(PROMPTS, groups):
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        assert engine.generate([ids], GREEDY) == [[completion]]
        assert completion.text == tokenizer.decode(completion.token_ids)
        assert completion.finish_reason == "length"
        assert len(completion.token_ids) == 10
        assert completion.logprobs is None


def test_the_stop_token_is_in_the_tokens_but_not_in_the_text(engine, tokenizer):
    (free,) = engine.generate(PROMPTS[:1], GREEDY)[0]
    stop = free.token_ids[3]
    first = free.token_ids.index(stop)
    sampling = dataclasses.replace(GREEDY, stop_token_ids=(stop,), logprobs=True)
    (completion,) = engine.generate(PROMPTS[:1], sampling)[0]
    assert completion.finish_reason == "stop"
    assert completion.token_ids == free.token_ids[: first + 1]
    assert completion.text == tokenizer.decode(free.token_ids[:first])
    assert completion.logprobs is not None
    assert len(completion.logprobs) == first + 1
    assert max(completion.logprobs) <= 0


def test_samples_do_not_depend_on_what_else_is_asked(engine, tokenizer):
    sampling = Sampling(max_tokens=6, temperature=1.0, n=2)
    seeds = [11, 12, 13, 14, 15]
    groups = engine.generate(PROMPTS, sampling, seeds=seeds)
    assert engine.generate(PROMPTS[::-1], sampling, seeds=seeds[::-1]) == groups[::-1]
    assert engine.generate(PROMPTS[2:3], sampling, seeds=seeds[2:3]) == groups[2:3]
    small = JaxEngine.from_model(make_model(), None, batch_size=1)
    ids = [tokenizer.encode(prompt, add_special_tokens=False) for prompt in PROMPTS[:2]]
    alone = small.generate(ids, sampling, seeds=seeds[:2])
    assert [[c.token_ids for c in group] for group in alone] == [[c.token_ids for c in group] for group in groups[:2]]
    assert all(a.token_ids != b.token_ids for a, b in groups)
    assert engine.generate(PROMPTS, sampling, seeds=[21, 22, 23, 24, 25]) != groups


def test_without_seeds_the_base_seed_and_the_index_decide():
    sampling = Sampling(max_tokens=1, seed=7)
    assert request_seeds(sampling, None, 2) == [7 << 32, 7 << 32 | 1]
    assert len({s for seed in range(9) for s in request_seeds(Sampling(max_tokens=1, seed=seed), None, 9)}) == 81
    assert request_seeds(sampling, [-1, 5], 2) == [2**64 - 1, 5]
    with pytest.raises(UsageError, match="1 given for 2 prompts"):
        request_seeds(sampling, [1], 2)


def test_new_weights_take_effect_without_compilation(engine, tokenizer):
    other = JaxEngine.from_model(make_model(), tokenizer, batch_size=4)
    before = other.generate(PROMPTS, GREEDY)
    assert before == engine.generate(PROMPTS, GREEDY)
    compiled = []

    def listen(event: str, _seconds: float, **_: object) -> None:
        compiled.append(event == "/jax/core/compile/backend_compile_duration")

    changed = make_model(5)
    trained = jax.jit(lambda x: jax.tree.map(lambda y: y * 1.0, x))(nnx.state(changed))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        other.update_weights(nnx.state(changed))
        after = other.generate(PROMPTS, GREEDY)
        other.update_weights(trained)
        assert other.generate(PROMPTS, GREEDY) == after
        fresh = JaxEngine.from_model(changed, tokenizer, batch_size=4)
        assert fresh.generate(PROMPTS, GREEDY) == after
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert after != before
    assert not any(compiled)


def test_weights_come_from_a_directory_too(tokenizer, tmp_path):
    model, other = make_model(), make_model(3)
    for name, source in (("first", model), ("second", other)):
        hf.save(source, tmp_path / name, jnp.float32)
        tokenizer.save_pretrained(tmp_path / name)
    engine = JaxEngine(tmp_path / "first", batch_size=4)
    before = engine.generate(PROMPTS, GREEDY)
    assert before == JaxEngine.from_model(model, tokenizer, batch_size=4).generate(PROMPTS, GREEDY)
    engine.update_weights(tmp_path / "second")
    assert engine.generate(PROMPTS, GREEDY) != before
    wide = dataclasses.replace(CONFIG, hidden_size=64)
    hf.save(make_model(config=wide), tmp_path / "wide", jnp.float32)
    with pytest.raises(W2SRError, match="another model"):
        engine.update_weights(tmp_path / "wide")
    with pytest.raises(W2SRError, match=r"misshaped.*\(28, 64\) instead of \(28, 32\)"):
        engine.update_weights(nnx.state(make_model(config=wide)))
    with pytest.raises(UsageError, match="float16"):
        JaxEngine(tmp_path / "first", dtype="float16")


def test_bfloat16_runs_and_its_logprobs_are_near_float32(tokenizer, tmp_path):
    hf.save(make_model(), tmp_path, jnp.float32)
    tokenizer.save_pretrained(tmp_path)
    sampling = dataclasses.replace(GREEDY, max_tokens=1, logprobs=True)
    half, full = (JaxEngine(tmp_path, kind).generate(PROMPTS[:1], sampling)[0][0] for kind in ("bfloat16", "float32"))
    assert half.token_ids == full.token_ids
    np.testing.assert_allclose(half.logprobs, full.logprobs, atol=0.1)


def test_every_prompt_ends_at_its_own_limit(engine):
    sampling, limits = dataclasses.replace(GREEDY, n=2), [4, *[10] * (len(PROMPTS) - 2), 1]
    whole, groups = engine.generate(PROMPTS, sampling), engine.generate(PROMPTS, sampling, limits=limits)
    for full, cut, limit in zip(whole, groups, limits, strict=True):
        assert [completion.token_ids for completion in cut] == [completion.token_ids[:limit] for completion in full]
    with pytest.raises(UsageError, match="limits: 1 given for 2 prompts"):
        engine.generate(["1", "2"], GREEDY, limits=[3])
    for wrong in (0, 11):
        with pytest.raises(UsageError, match=rf"1 to sampling.max_tokens = 10, got {wrong}"):
            engine.generate(["1", "2"], GREEDY, limits=[3, wrong])


def test_the_context_limit_and_other_bad_requests_are_one_clear_line(engine):
    with pytest.raises(W2SRError, match=r"prompt 1: 6 tokens \+ max_tokens 59 exceed the model's context of 64"):
        engine.generate(["1", "55+5=?"], Sampling(max_tokens=59))
    assert len(engine.generate(["55+5=?"], Sampling(max_tokens=58))[0][0].token_ids) == 58
    with pytest.raises(W2SRError, match="prompt 0: no tokens"):
        engine.generate([""], GREEDY)
    with pytest.raises(W2SRError, match="prompt 0: a token id lies outside"):
        engine.generate([[3, 99]], GREEDY)
    with pytest.raises(UsageError, match="no tokenizer"):
        JaxEngine.from_model(make_model(), None).generate(["1"], GREEDY)
    with pytest.raises(UsageError, match="batch_size"):
        JaxEngine.from_model(make_model(), None, batch_size=0)
    for bad in ({"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"n": 0}, {"seed": -1}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            engine.generate(["1"], Sampling(**{"max_tokens": 5} | bad))


def test_no_prompts_give_no_completions(engine):
    assert engine.generate([], GREEDY) == []


def test_without_a_tokenizer_token_ids_are_all_there_is(engine):
    (completion,) = JaxEngine.from_model(make_model(), None, batch_size=4).generate([[5, 6]], GREEDY)[0]
    assert completion == Completion("", completion.token_ids, None, "length")
    assert completion.token_ids == engine.generate([[5, 6]], GREEDY)[0][0].token_ids


@pytest.mark.parametrize("ways", [1, 2, 4])
@pytest.mark.parametrize(("count", "n", "batch_size"), [(1, 1, 64), (70, 1, 64), (9, 8, 64), (5, 100, 8), (3, 3, 1)])
def test_a_batch_takes_every_sample_once_in_rows_of_the_batch_size(count, n, batch_size, ways):
    lengths = [(7 * i) % 11 + 1 for i in range(count)]
    batch = plan_batch(lengths, n, batch_size, ways)
    held = [(prompt, sample + copy) for prompt, sample in batch.requests for copy in range(batch.copies)]
    assert sorted(held) == [(prompt, sample) for prompt in range(count) for sample in range(n)]
    assert batch.size % ways == 0
    assert batch.size * batch.copies <= max(batch_size, ways)
    order = [lengths[prompt] for prompt, _ in batch.requests]
    assert order == sorted(order, reverse=True)


def test_the_description_is_json_and_says_what_ran(engine):
    described = json.loads(json.dumps(engine.describe()))
    assert described["engine"] == "jax"
    assert described["dtype"] == "float32"
    assert described["batch_size"] == 4
    assert described["mesh"] is None


@pytest.mark.torch
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_greedy_tokens_equal_those_of_transformers(family, tmp_path):
    import torch
    import transformers

    config = dataclasses.replace(CONFIG, family=family, attention_bias=family == "qwen2", tie_embeddings=False)
    hf.save(make_model(1, config), tmp_path, jnp.float32)
    engine = JaxEngine.from_model(hf.load(tmp_path), None, batch_size=4)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompts = [[3, 4, 5], [9], [20, 7, 7, 2, 11, 12, 13]]
    stops = dataclasses.replace(GREEDY, max_tokens=24, stop_token_ids=(1, 8))
    for prompt, (completion,) in zip(prompts, engine.generate(prompts, stops)):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = reference.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=24,
                eos_token_id=[1, 8],
                pad_token_id=0,
            )
        assert completion.token_ids == out[0, len(prompt) :].tolist()
