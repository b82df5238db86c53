"""What vLLM's process says of requests that vLLM does not take, with an engine of ours in vLLM's place."""

import sys
import types

import pytest

from w2sr_jax.engine import vllm_worker

REQUEST = {"requests": [[0, 0, [1], 7, 4], [1, 0, [2], 8, 4]], "params": {}}


class EngineDeadError(Exception):
    """As vLLM calls it: its process is gone."""


class Refusing:
    def __init__(self, error):
        self.error, self.aborted = error, []

    def add_request(self, name, prompt, params):
        if name == "1:0":
            raise self.error

    def abort_request(self, names):
        self.aborted += names


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    params = types.SimpleNamespace(RequestOutputKind=types.SimpleNamespace(FINAL_ONLY=0))
    monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace(SamplingParams=lambda **given: given))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)


def test_a_request_that_vllm_does_not_take_is_refused_and_the_others_are_taken_back():
    engine, sent = Refusing(ValueError("too\nlong")), []
    vllm_worker.generate(engine, REQUEST, sent.append, lambda: False)
    assert sent == [{"refused": "ValueError: too long"}]
    assert engine.aborted == ["0:0"]


def test_an_engine_that_died_while_requests_were_added_is_no_refusal():
    sent = []
    with pytest.raises(EngineDeadError):
        vllm_worker.generate(Refusing(EngineDeadError("root cause above")), REQUEST, sent.append, lambda: False)
    assert sent == []
