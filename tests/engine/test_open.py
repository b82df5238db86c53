"""Asking an engine for what is still missing, with an engine that answers by rote."""

import dataclasses

import pytest

from tests.engine.models import CONFIG
from w2sr_jax.core.config import SamplingConfig
from w2sr_jax.core.cost import StageClock
from w2sr_jax.core.files import read_jsonl, write_json
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.core.stage_config import DistillConfig
from w2sr_jax.engine import open as engines
from w2sr_jax.engine.base import Completion, Sampling
from w2sr_jax.engine.open import model_name, request_seed, sampling_for, write_traces
from w2sr_jax.micro.tokenizer import save_tokenizer

MODEL = dataclasses.replace(CONFIG, eos_token_ids=(0,))  # of which only the context and the stop token are asked
PROBLEMS = [Problem(id=f"p{i}", problem=f"{i}+1=?", answer=str(i + 1)) for i in range(4)]


class Rote:
    """Answers with prompt and seed, the last prompt first; keeps what it was asked."""

    def __init__(self):
        self.calls, self.closed = [], 0

    def generate(self, prompts, sampling, *, seeds, on_finished):
        self.calls.append((list(prompts), sampling, list(seeds)))
        for index in reversed(range(len(prompts))):
            for sample in range(sampling.n):
                text = f"{prompts[index]} {seeds[index]} {sample}"
                on_finished(index, sample, Completion(text, [4, 5, 0], None, "stop" if sample else "length"))

    def describe(self):
        return {"engine": "rote", "device_kind": "rote", "devices": 2}

    def close(self):
        self.closed += 1


@pytest.fixture
def engine(monkeypatch):
    rote = Rote()
    monkeypatch.setattr(engines, "open_engine", lambda *args: rote)
    return rote


@pytest.fixture
def ask(tmp_path, engine):
    """ask(problems, **changes) -> (traces, provenance) of WORKDIR/traces.jsonl."""
    save_tokenizer(tmp_path / "model", 64)
    write_json(tmp_path / "model" / "config.json", MODEL.to_hf())

    def asked(problems=PROBLEMS, n=2, prefix="", seed=0):
        config = DistillConfig(model="models/rote", problems="p", response_prefix=prefix)
        sampling = SamplingConfig(max_tokens=9, temperature=1.0, n=n, seed=seed)
        path, model = tmp_path / "traces.jsonl", tmp_path / "model"
        answers = write_traces(path, model, problems, config, sampling, "plain", StageClock(tmp_path, "distill"))
        assert answers.prompts == [4] * len(answers.traces)  # 0 + 1 =?
        return answers.traces, answers.provenance

    return asked


@pytest.mark.parametrize(("kind", "charged"), [("jax", ("cpu", 1)), ("vllm", ("rote", 2))])
def test_vllm_s_devices_are_charged_instead_of_jax_s(tmp_path, engine, kind, charged):
    save_tokenizer(tmp_path / "model", 64)
    write_json(tmp_path / "model" / "config.json", MODEL.to_hf())
    config = DistillConfig(model="m", problems="p", engine=kind, sampling=SamplingConfig(max_tokens=9))
    clock = StageClock(tmp_path, "distill")
    write_traces(tmp_path / "t.jsonl", tmp_path / "model", PROBLEMS, config, config.sampling, "plain", clock)
    assert (clock.device_kind, clock.device_count) == charged


def keys(traces):
    return [(t.problem_id, t.sample) for t in traces]


def test_traces_come_back_in_order_and_are_written_as_they_finish(ask, engine, tmp_path):
    traces, provenance = ask()
    assert keys(traces) == [(f"p{i}", s) for i in range(4) for s in range(2)]
    written = read_jsonl(tmp_path / "traces.jsonl", Trace)
    assert keys(written) == [(f"p{i}", s) for i in (3, 2, 1, 0) for s in range(2)]
    assert sorted(keys(traces)) == sorted(keys(written))
    assert {(t.response_tokens, t.teacher) for t in traces} == {(3, "rote")}
    assert [t.finish_reason for t in traces[:2]] == ["length", "stop"]
    assert provenance["engine"] == {"engine": "rote", "device_kind": "rote", "devices": 2}
    assert engine.closed == 1
    assert provenance["stop_token_ids"] == [0]


def test_prompts_sampling_and_seeds_reach_the_engine(ask, engine):
    ask(seed=5)
    (prompts, sampling, seeds) = engine.calls[0]
    assert prompts == ["0+1=?", "1+1=?", "2+1=?", "3+1=?"]
    assert sampling == Sampling(max_tokens=9, temperature=1.0, n=2, seed=5, stop_token_ids=(0,))
    assert seeds == [request_seed(5, p.id) for p in PROBLEMS]


def test_only_problems_with_a_missing_sample_are_asked_and_none_is_doubled(ask, engine, tmp_path):
    whole, _ = ask()
    lines = (tmp_path / "traces.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "traces.jsonl").write_text("".join(lines[:3]))  # p3 whole, p2 half
    again, _ = ask()
    assert engine.calls[1][0] == ["0+1=?", "1+1=?", "2+1=?"]
    assert again == whole
    assert (tmp_path / "traces.jsonl").read_text() == "".join(lines)


def test_more_problems_may_be_asked_later(ask, engine, tmp_path):
    ask(PROBLEMS[:2])
    traces, _ = ask(PROBLEMS)
    assert engine.calls[1][0] == ["2+1=?", "3+1=?"]
    assert len(traces) == len(read_jsonl(tmp_path / "traces.jsonl", Trace)) == 8
    fewer, _ = ask(PROBLEMS[:1])
    assert keys(fewer) == [("p0", 0), ("p0", 1)]


def test_a_prefix_is_put_after_the_prompt_and_before_the_response(ask, engine):
    traces, _ = ask(prefix="<work>0")
    assert engine.calls[0][0][0] == "0+1=?<work>0"
    assert all(t.response.startswith("<work>0") for t in traces)
    assert {t.response_tokens for t in traces} == {2 + 3}


def test_a_seed_belongs_to_a_problem():
    assert request_seed(0, "a") == request_seed(0, "a")
    assert len({request_seed(0, "a"), request_seed(0, "b"), request_seed(1, "a")}) == 3


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("/runs/micro/teacher/export", "teacher"),
        ("/runs/micro/teacher/", "teacher"),
        ("export", "export"),
    ],
)
def test_models_are_called_by_their_last_name_or_their_run(model, name):
    assert model_name(model) == name


def test_every_field_of_a_sampling_config_is_taken_over():
    config = SamplingConfig(max_tokens=3, temperature=0.5, top_p=0.9, top_k=4, n=2, seed=6)
    sampling = sampling_for(config, [1, 2], logprobs=True)
    assert all(getattr(sampling, field.name) == getattr(config, field.name) for field in dataclasses.fields(config))
    assert (sampling.stop_token_ids, sampling.logprobs) == ((1, 2), True)
