"""vLLM itself against the JAX decoder."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from flax import nnx

from tests.engine.models import CONFIG, save_model
from w2sr_jax.core.config import VllmConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.data.chat import load_tokenizer, render
from w2sr_jax.engine import vllm_offline
from w2sr_jax.engine.base import Sampling
from w2sr_jax.engine.child import Child
from w2sr_jax.engine.jax_engine import JaxEngine
from w2sr_jax.engine.vllm_backend import Request
from w2sr_jax.engine.vllm_engine import VllmEngine
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder

pytestmark = pytest.mark.vllm
KINDS = {
    "tied-qwen2": CONFIG,
    "untied-qwen2": dataclasses.replace(CONFIG, tie_embeddings=False),
    "tied-llama": dataclasses.replace(CONFIG, family="llama", attention_bias=False),
}
LONG = [3 + i % 70 for i in range(140)]  # more than a block of vLLM's prefix cache on CPU, which holds 128
PROMPTS = [[5, 6, 7], [9], LONG, [20, 7, 7, 2, 11, 12, 13], [*LONG[:130], 40]]
GREEDY = Sampling(max_tokens=24, logprobs=True)


@functools.partial(jax.jit, static_argnums=0)
def _logprobs(graphdef, params, tokens_BT):
    model = nnx.merge(graphdef, params)
    return jax.nn.log_softmax(model.logits(model(tokens_BT)))


@dataclasses.dataclass
class Pair:
    """vLLM, and the decoder with the weights that it should have."""

    engine: VllmEngine
    model: Decoder
    config: ModelConfig

    def logprobs(self, sequences) -> list[np.ndarray]:
        """[T, V] of the plain softmax for every sequence."""
        longest = -(-max(map(len, sequences)) // 128) * 128
        tokens_BT = np.zeros((len(PROMPTS), longest), np.int32)
        for row, tokens in zip(tokens_BT, sequences, strict=False):
            row[: len(tokens)] = tokens  # causal: what comes after does not matter
        logprobs_BTV = np.asarray(_logprobs(*nnx.split(self.model), tokens_BT))
        return [logprobs[: len(tokens)] for logprobs, tokens in zip(logprobs_BTV, sequences, strict=False)]

    def assert_agrees(self, prompts, groups) -> None:
        """Every greedy token is the decoder's own wherever its two best are 1e-3 apart, every logprob within 1e-4."""
        clear = total = 0
        whole = self.logprobs([[*prompt, *group[0].token_ids] for prompt, group in zip(prompts, groups, strict=True)])
        for prompt, (completion,), logprobs_TV in zip(prompts, groups, whole):
            ids = completion.token_ids
            logprobs_TV = logprobs_TV[len(prompt) - 1 : -1]
            second, best = np.sort(logprobs_TV)[:, -2:].T
            apart = best - second > 1e-3
            assert (logprobs_TV.argmax(-1) == ids)[apart].all()
            np.testing.assert_allclose(completion.logprobs, logprobs_TV[np.arange(len(ids)), ids], atol=1e-4, rtol=0)
            clear, total = clear + int(apart.sum()), total + len(ids)
        assert clear > 0.9 * total


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    model = save_model(root, config=KINDS[request.param])
    with VllmEngine(root, batch_size=16) as engine:
        yield Pair(engine, model, KINDS[request.param])


@pytest.fixture(scope="module")
def engine(directory):
    with VllmEngine(directory, batch_size=16) as engine:
        yield engine


def test_greedy_tokens_and_logprobs_are_those_of_the_decoder_after_every_change_of_weights(pair, tmp_path):
    pair.assert_agrees(PROMPTS, pair.engine.generate(PROMPTS, GREEDY))
    before = None
    for seed in range(1, 21):
        pair.model = save_model(tmp_path / "next", seed, pair.config)
        pair.engine.update_weights(tmp_path / "next")
        groups = pair.engine.generate(PROMPTS, dataclasses.replace(GREEDY, max_tokens=4))
        pair.assert_agrees(PROMPTS, groups)
        assert groups != before
        before = groups


@pytest.mark.skipif("W2SR_REAL_MODEL" not in os.environ, reason="W2SR_REAL_MODEL=DIR names no real model")
def test_a_real_model_gives_the_same_greedy_tokens_and_logprobs():
    """On SmolLM2-135M and its like: vLLM against the decoder, and the two engines against each other."""
    directory = os.environ["W2SR_REAL_MODEL"]
    tokenizer = load_tokenizer(directory)
    questions = ["What is 12 * 13?", "Solve x + 4 = 9.", "Name three primes.", "Halve 98 twice.", "A train at 60 km/h?"]
    prompts = [tokenizer.encode(render("chat", text, tokenizer), add_special_tokens=False) for text in questions]
    sampling = dataclasses.replace(GREEDY, max_tokens=64)
    with VllmEngine(directory, batch_size=5) as engine:
        groups = engine.generate(prompts, sampling)
    model = hf.load(directory)
    Pair(engine, model, model.config).assert_agrees(prompts, groups)
    ours = JaxEngine(directory, batch_size=5).generate(prompts, sampling)
    for (one,), (other,) in zip(groups, ours, strict=True):
        assert one.token_ids == other.token_ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_samples_do_not_depend_on_what_else_is_asked(engine):
    sampling = Sampling(max_tokens=6, temperature=1.0, n=2)
    seeds = [11, 12, 13, 14, 15]
    groups = engine.generate(PROMPTS, sampling, seeds=seeds)
    assert engine.generate(PROMPTS[::-1], sampling, seeds=seeds[::-1]) == groups[::-1]
    assert engine.generate(PROMPTS[2:3], sampling, seeds=seeds[2:3]) == groups[2:3]
    assert all(a.token_ids != b.token_ids for a, b in groups)
    assert engine.generate(PROMPTS, sampling, seeds=[21, 22, 23, 24, 25]) != groups
    same = engine.generate([[9]] * 8, sampling, seeds=list(range(8)))
    assert len({tuple(c.token_ids) for group in same for c in group}) == 16


def test_sampling_has_the_models_own_frequencies_and_plain_logprobs(engine, directory):
    pair = Pair(engine, hf.load(directory), CONFIG)
    logprobs_V = pair.logprobs([[9]])[0][-1]
    sampling = Sampling(max_tokens=1, temperature=2.0, top_k=3, n=600, logprobs=True)
    (group,) = engine.generate([[9]], sampling)
    top = np.argsort(logprobs_V)[-3:]
    expected = np.exp(logprobs_V[top] / 2) / np.exp(logprobs_V[top] / 2).sum()
    found = np.array([sum(c.token_ids == [token] for c in group) / 600 for token in top])
    np.testing.assert_allclose(found, expected, atol=0.08)
    assert found.sum() == 1
    for completion in group:
        np.testing.assert_allclose(completion.logprobs, logprobs_V[completion.token_ids], atol=1e-4)


def test_more_prompt_tokens_than_vllm_reads_at_once_can_be_sampled_from(engine):
    """In pieces vLLM 0.32 would read them, and die of it on a CPU."""
    groups = engine.generate([[*LONG, i] for i in range(3, 35)], Sampling(max_tokens=3, temperature=1.0))
    assert [len(group[0].token_ids) for group in groups] == [3] * 32
    assert engine._restarts == 0


def test_only_the_stop_ids_asked_for_stop_and_they_are_in_the_tokens_but_not_in_the_text(engine):
    (free,) = engine.generate(PROMPTS[:1], GREEDY)[0]
    assert (free.finish_reason, len(free.token_ids)) == ("length", 24)
    stop = free.token_ids[3]
    first = free.token_ids.index(stop)
    (completion,) = engine.generate(PROMPTS[:1], dataclasses.replace(GREEDY, stop_token_ids=(stop,)))[0]
    assert completion.finish_reason == "stop"
    assert completion.token_ids == free.token_ids[: first + 1]
    assert len(completion.logprobs) == first + 1
    assert free.text.startswith(completion.text)
    wild = engine.generate([[9]], Sampling(max_tokens=100, temperature=2.0, n=64))[0]
    assert any(1 in c.token_ids[:-1] for c in wild)  # EOS of config.json, which was not asked for
    assert {c.finish_reason for c in wild} == {"length"}


def test_every_prompt_ends_at_its_own_limit(engine):
    limits = [1, 24, *[9] * (len(PROMPTS) - 2)]
    whole, groups = engine.generate(PROMPTS, GREEDY), engine.generate(PROMPTS, GREEDY, limits=limits)
    expected = [group[0].token_ids[:limit] for group, limit in zip(whole, limits)]
    assert [group[0].token_ids for group in groups] == expected


def test_what_vllm_refuses_is_one_line_and_leaves_nothing_behind(engine):
    answers = []
    run = functools.partial(engine._backend.run, params={}, on_answer=answers.append)
    with pytest.raises(W2SRError, match=r"^vllm: \w+: .*256"):
        run([Request((0, 0), [9], None, 4), Request((1, 0), [9] * 300, None, 4)])
    assert answers == []
    run([Request((3, 0), [9], None, 4)])
    assert [answer.key for answer in answers] == [(3, 0)]


def test_completions_are_told_before_all_are_done_and_fill_the_context(engine):
    told = []
    sampling = Sampling(max_tokens=116)
    stop = engine.generate([[9]], dataclasses.replace(GREEDY, max_tokens=1))[0][0].token_ids[0]
    short = dataclasses.replace(sampling, stop_token_ids=(stop,))
    groups = engine.generate([LONG, [9]], short, on_finished=lambda *call: told.append(call[0]))
    assert told == [1, 0]
    assert groups[1][0].token_ids == [stop]
    assert len(engine.generate([LONG], sampling)[0][0].token_ids) == 116  # 140 + 116 is the whole context
    with pytest.raises(W2SRError, match=r"prompt 0: 140 tokens \+ max_tokens 117 exceed the model's context of 256"):
        engine.generate([LONG], dataclasses.replace(sampling, max_tokens=117))


def test_the_description_is_json_and_says_what_ran(engine):
    described = json.loads(json.dumps(engine.describe()))
    assert (described["engine"], described["mode"], described["dtype"]) == ("vllm", "offline", "float32")
    assert (described["batch_size"], described["max_model_len"]) == (16, 256)
    assert described["version"][0].isdigit()


@pytest.mark.parametrize("kind", ["tied-qwen2", "untied-qwen2"])
def test_bfloat16_runs_and_stays_right_over_a_change_of_weights(kind, tmp_path):
    save_model(tmp_path / "first", config=KINDS[kind])
    with VllmEngine(tmp_path / "first", dtype="bfloat16", batch_size=16) as engine:
        for seed in (0, 4):
            model = save_model(tmp_path / "next", seed, KINDS[kind])
            engine.update_weights(tmp_path / "next")
            groups = engine.generate(PROMPTS, dataclasses.replace(GREEDY, max_tokens=1))
            for (completion,), logprobs_TV in zip(
                groups, Pair(engine, model, model.config).logprobs(PROMPTS), strict=True
            ):
                expected = logprobs_TV[-1][completion.token_ids]
                np.testing.assert_allclose(completion.logprobs, expected, atol=0.15)


def test_a_killed_vllm_is_started_again_and_gives_the_same_greedy_answers(engine, directory):
    prompts = [[9, 3 + i] for i in range(40)]
    expected = engine.generate(prompts, GREEDY)
    killed = []

    def kill(*call):
        if not killed:
            killed.append(call)
            os.kill(other._backend.pid, signal.SIGKILL)

    with VllmEngine(directory, batch_size=16) as other:
        found = other.generate(prompts, GREEDY, on_finished=kill)
        assert other.describe()["restarts"] == 1
    assert [group[0].token_ids for group in found] == [group[0].token_ids for group in expected]


@pytest.mark.skipif(shutil.which("g++") is None, reason="vLLM compiles with g++")
def test_compiled_and_without_seeds_it_has_the_decoder_s_greedy_tokens_and_draws_anew_each_time(directory):
    """As `w2sr compare` runs it; here with more prompt tokens than a step takes, so that prompts are read in pieces."""
    prompts = [*PROMPTS, *([[9] * 100] * 64)]
    with VllmEngine(directory, options=VllmConfig(compile=True), seeded=False) as engine:
        model = hf.load(directory)
        Pair(engine, model, model.config).assert_agrees(PROMPTS, engine.generate(PROMPTS, GREEDY))
        sampling = Sampling(max_tokens=6, temperature=1.0)
        first, second = engine.generate(prompts, sampling, seeds=[1] * len(prompts)), engine.generate(prompts, sampling)
        assert [len(group[0].token_ids) for group in first] == [6] * len(prompts)
        assert first != second
        assert len({tuple(group[0].token_ids) for group in first[len(PROMPTS) :]}) > 32  # not one stream for all


def test_a_worker_whose_parent_is_gone_ends_in_the_middle_of_its_work(directory):
    child = Child(vllm_offline.WORKER, "vllm", vllm_offline.environment())
    child.send(vllm_offline.engine_arguments(str(directory), "float32", 4, 1, VllmConfig()))
    assert child.receive()["ready"]["max_model_len"] == 256
    requests = [[i, 0, [9], None, 200] for i in range(2000)]
    child.send({"do": "generate", "requests": requests, "params": {"temperature": 0.0}})
    assert child.receive()["key"]
    child._process.stdin.close()
    began = time.monotonic()
    child._process.wait(60)
    assert time.monotonic() - began < 60
    child.close()


def test_what_vllm_refuses_at_its_start_is_one_line(directory, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    with pytest.raises(
        W2SRError, match=r"^vllm: ValueError: Available memory .* requested memory for kv.* -- lower con"
    ):
        VllmEngine(directory)
