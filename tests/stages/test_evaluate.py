"""`w2sr evaluate`: accuracy with its interval, forced modes, reuse, and resuming half-written responses."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from w2sr_jax.core import cost
from w2sr_jax.core.config import SamplingConfig
from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_json, read_jsonl, write_jsonl
from w2sr_jax.core.records import Disagreement, Prediction, Problem, Trace
from w2sr_jax.core.stage_config import EvaluateConfig
from w2sr_jax.core.trace_config import HYGIENE_FLAGS
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.engine import open as engines
from w2sr_jax.engine.limits import cut_at_stops
from w2sr_jax.grading.second import SECOND_VERSION
from w2sr_jax.grading.statistics import wilson_interval
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.stages import evaluate

NOT_COMPARED = ("seconds",)


@pytest.fixture(scope="module")
def config(files, guesser, one_device, decode):
    return EvaluateConfig(
        model=str(guesser),
        problems=files.problems,
        benchmark="sums",
        template="plain",
        sampling=SamplingConfig(max_tokens=6),
        decode=decode,
        mesh=one_device,
    )


@pytest.fixture(scope="module")
def sampled(config):
    return dataclasses.replace(config, sampling=SamplingConfig(max_tokens=6, temperature=1.0, n=6, seed=3))


@pytest.fixture(scope="module")
def unbroken(sampled, tmp_path_factory):
    root = tmp_path_factory.mktemp("unbroken")
    return root, evaluate.main(sampled, str(root))


def predictions(root):
    return read_jsonl(root / "predictions.jsonl", Prediction)


def right(found, problem_id):
    return sum(p.correct for p in found if p.problem_id == problem_id)


def test_greedy_gives_one_graded_answer_a_problem_and_a_wilson_interval(config, tmp_path):
    result = evaluate.main(config, str(tmp_path))
    found = predictions(tmp_path)
    assert [p.problem_id for p in found] == [f"p{i:02d}" for i in range(16)]
    assert all(p.correct == (p.extracted == "3") for p in found)
    correct = sum(p.correct for p in found)
    assert (result["n"], result["k"], result["pass_at_1"]) == (16, 1, correct / 16)
    assert result["interval"] == list(wilson_interval(correct, 16))
    assert "pass_at_k" not in result
    assert (result["benchmark"], result["model"]) == ("sums", config.model)
    assert result == read_json(tmp_path / "result.json")
    assert not (tmp_path / "responses.jsonl").exists()


def test_the_result_tells_the_protocol_the_stop_rate_and_the_cost(config, tmp_path):
    short = dataclasses.replace(config, sampling=SamplingConfig(max_tokens=2))
    result = evaluate.main(short, str(tmp_path))
    assert (result["stop_rate"], result["length_stops"]) == (0.0, 16)
    assert all(p.finish_reason == "length" and p.response_tokens == 2 for p in predictions(tmp_path))
    assert result["hygiene"].keys() == set(HYGIENE_FLAGS)
    assert result["hygiene"]["length_stop"] == 16
    decoding = result["decoding"]
    assert (decoding["template"], decoding["max_tokens"], decoding["dtype"]) == ("plain", 2, "float32")
    assert decoding["stop_token_ids"] == [0]
    (line,) = read_ledger(tmp_path)
    assert (line.stage, line.tokens_out) == ("evaluate", 32)
    model = hf.resolve(config.model)
    prompts = [len(load_tokenizer(model).encode(p.problem)) for p in read_jsonl(config.problems, Problem)]
    assert line.tokens_in == sum(prompts)
    shape = flops_shape(hf.load_config(model))
    assert line.flops == pytest.approx(sum(cost.prefill_flops(tokens=n + 2, context=n + 2, **shape) for n in prompts))


def test_stopped_and_cut_answers_add_up(config, tmp_path):
    result = evaluate.main(config, str(tmp_path))
    stops = sum(p.finish_reason == "stop" for p in predictions(tmp_path))
    assert stops > 0
    assert (result["stop_rate"], result["length_stops"]) == (stops / 16, 16 - stops)


def test_samples_give_avg_at_k_unbiased_pass_at_k_and_a_bootstrap_interval(unbroken):
    root, result = unbroken
    found = predictions(root)
    assert [(p.problem_id, p.sample) for p in found] == [(f"p{i:02d}", s) for i in range(16) for s in range(6)]
    assert result["k"] == 6
    assert result["pass_at_1"] == pytest.approx(sum(p.correct for p in found) / 96)
    assert result["pass_at_k"].keys() == {"1", "2", "4"}
    assert result["pass_at_k"]["1"] == pytest.approx(result["pass_at_1"])
    # pass@2: one minus the share of pairs of samples that are both wrong
    wrong = [6 - right(found, f"p{i:02d}") for i in range(16)]
    assert result["pass_at_k"]["2"] == pytest.approx(1 - sum(w * (w - 1) / 30 for w in wrong) / 16)
    assert result["pass_at_k"]["1"] < result["pass_at_k"]["2"] < result["pass_at_k"]["4"]
    low, high = result["interval"]
    assert 0 <= low < result["pass_at_1"] < high <= 1


def test_a_forced_mode_begins_every_response_and_counts_as_its_tokens(config, tmp_path):
    forced = dataclasses.replace(config, response_prefix="\\boxed{3")
    result = evaluate.main(forced, str(tmp_path))
    found = predictions(tmp_path)
    assert all(p.response.startswith("\\boxed{3") for p in found)
    assert all(p.response_tokens > 2 for p in found)
    assert result["decoding"]["response_prefix"] == "\\boxed{3"
    assert result["pass_at_1"] > 0.5


def test_a_finished_result_is_reused(unbroken, sampled, monkeypatch):
    root, result = unbroken
    monkeypatch.setattr(engines, "open_engine", None)
    assert evaluate.main(sampled, str(root)) == result


def test_a_finished_result_of_other_problems_or_weights_is_refused(config, tmp_path):
    model = shutil.copytree(hf.resolve(config.model), tmp_path / "model")
    problems = tmp_path / "problems.jsonl"
    shutil.copy(config.problems, problems)
    own = dataclasses.replace(config, model=str(model), problems=str(problems))
    result = evaluate.main(own, str(tmp_path / "w"))
    assert result["weights"] == hf.weights_hash(model)
    assert evaluate.main(own, str(tmp_path / "w")) == result
    write_jsonl(problems, read_jsonl(problems, Problem)[::-1])
    with pytest.raises(W2SRError, match=r"w: its answers are of other problems than .*; use another --workdir"):
        evaluate.main(own, str(tmp_path / "w"))
    shutil.copy(config.problems, problems)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(W2SRError, match=r"w: its answers are of other weights than .*; use another --workdir"):
        evaluate.main(own, str(tmp_path / "w"))


@pytest.mark.parametrize("right", [0, 1])
def test_samples_that_are_all_right_or_all_wrong_still_have_an_interval(right):
    problems = [Problem(id=f"p{i}", problem="?", answer="3") for i in range(30)]
    made = [
        Prediction(
            benchmark="b",
            problem_id=p.id,
            sample=sample,
            response="",
            response_tokens=1,
            finish_reason="stop",
            extracted=None,
            correct=bool(right),
            hygiene=[],
        )
        for p in problems
        for sample in range(4)
    ]
    result = evaluate.summarise(4, "b", problems, made)
    assert result["interval"] == list(wilson_interval(30 * right, 30))
    assert result["interval"][0] < result["interval"][1]


@pytest.mark.parametrize("kept", [0, 1, 5, 95, 96])
def test_half_written_responses_are_continued_without_doubles(unbroken, sampled, tmp_path, kept):
    whole, _ = unbroken
    rows = [dataclasses.asdict(p) for p in predictions(whole)]
    names = ("problem_id", "sample", "response", "response_tokens", "finish_reason")
    lines = [json.dumps({n: row[n] for n in names} | {"teacher": "guesser"}) + "\n" for row in rows]
    cut = lines[kept][: len(lines[kept]) // 2] if kept < len(lines) else ""
    (tmp_path / "responses.jsonl").write_text("".join(lines[:kept]) + cut)
    shutil.copy(whole / "identity.json", tmp_path)
    result = evaluate.main(sampled, str(tmp_path))
    assert (tmp_path / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    assert strip(result) == strip(unbroken[1])


def strip(result):
    return {name: value for name, value in result.items() if name not in NOT_COMPARED}


def test_a_run_killed_after_its_result_leaves_nothing_behind(unbroken, sampled):
    root, result = unbroken
    (root / "responses.jsonl").write_text("")
    assert evaluate.main(sampled, str(root)) == result
    assert not (root / "responses.jsonl").exists()


def test_a_run_killed_in_grading_answers_nothing_again(sampled, unbroken, tmp_path, monkeypatch, killed):
    def never(*args, **options):
        raise killed

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "score", never)
        with pytest.raises(killed):
            evaluate.main(sampled, str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(engines, "request_seed", never)
        assert strip(evaluate.main(sampled, str(tmp_path))) == strip(unbroken[1])


def test_answers_are_kept_in_the_order_of_the_problems_and_limited(config, files, tmp_path):
    shuffled = read_jsonl(files.problems, Problem)[::-1]
    write_jsonl(tmp_path / "back.jsonl", shuffled)
    back = dataclasses.replace(config, problems=str(tmp_path / "back.jsonl"), limit=5, benchmark="")
    result = evaluate.main(back, str(tmp_path / "w"))
    assert (result["benchmark"], result["n"]) == ("back", 5)
    assert [p.problem_id for p in predictions(tmp_path / "w")] == ["p15", "p14", "p13", "p12", "p11"]


def test_every_other_rule_is_scored_beside_the_one_that_counts(config, tmp_path):
    result = evaluate.main(config, str(tmp_path))
    assert result["second_grader"] == {
        "grader": SECOND_VERSION,
        "pass_at_1": result["pass_at_1"],
        "main_only": 0,
        "second_only": 0,
    }
    assert result["box_rules"].keys() == {"first_box", "last_box", "stop_at_box"}
    assert result["box_rules"]["last_box"] == result["pass_at_1"]
    assert read_jsonl(tmp_path / "disagreements.jsonl", Disagreement) == []
    assert result["benchmark_file"] is None
    assert "protocol" not in result["decoding"]


def test_a_disagreement_of_the_graders_is_counted_and_listed(config, files, tmp_path):
    problems = [dataclasses.replace(p, answer="300", verifier="math") for p in read_jsonl(files.problems, Problem)]
    write_jsonl(tmp_path / "percent.jsonl", problems)
    result = evaluate.main(dataclasses.replace(config, problems=str(tmp_path / "percent.jsonl")), str(tmp_path / "w"))
    threes = [p for p in predictions(tmp_path / "w") if p.extracted == "3"]
    assert len(threes) > 0
    assert result["pass_at_1"] == 0.0
    assert result["second_grader"]["second_only"] == len(threes) == round(16 * result["second_grader"]["pass_at_1"])
    listed = read_jsonl(tmp_path / "w" / "disagreements.jsonl", Disagreement)
    assert [d.problem_id for d in listed] == [p.problem_id for p in threes]
    assert (listed[0].extracted, listed[0].answer, listed[0].main, listed[0].second) == ("3", "300", False, True)


@pytest.fixture(scope="module")
def named(config):
    """A config under a named protocol: nothing of the prompt or the sampling is its own."""
    return dataclasses.replace(config, protocol="simplerl", template="qwen-boxed", sampling=SamplingConfig())


def test_a_named_protocol_is_recorded_and_its_budget_ends_at_the_context(config, named, tmp_path):
    with pytest.raises(UsageError, match=r"config.template: protocol 'simplerl' fixes it"):
        evaluate.main(dataclasses.replace(config, protocol="simplerl"), str(tmp_path / "refused"))
    model = small_context_copy(config.model, tmp_path)
    result = evaluate.main(dataclasses.replace(named, model=model, limit=4), str(tmp_path / "w"))
    decoding = result["decoding"]
    assert (decoding["protocol"], decoding["template"]) == ("simplerl", "qwen-boxed")
    assert decoding["stop_strings"][:3] == ["</s>", "<|im_end|>", "<|endoftext|>"]
    assert (decoding["max_tokens"], decoding["temperature"], decoding["top_p"]) == (16000, 1.0, 0.95)
    assert 0 < result["token_limit"] < 512
    assert all(p.response_tokens <= result["token_limit"] for p in predictions(tmp_path / "w"))
    assert result["stop_strings"].keys() == {"cut", "cut_length_stops"}


def small_context_copy(model, tmp_path):
    """The model with room for 512 positions: a template of 200 characters, and little more than half for the answer."""
    copy = Path(shutil.copytree(Path(model) / "export", tmp_path / "model"))
    raw = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(raw | {"max_position_embeddings": 512}))
    return str(copy)


def test_stop_strings_cut_after_the_prefix_and_count_what_they_hide():
    def trace(sample, response, finish="stop"):
        return Trace(
            problem_id="p", sample=sample, response=response, response_tokens=9, finish_reason=finish, teacher="t"
        )

    traces = [trace(0, "user 5"), trace(1, "user 5 user 6", "length"), trace(2, "user 7", "length")]
    found, cuts = cut_at_stops(traces, ("user",), len("user"))
    assert [t.response for t in found] == ["user 5", "user 5 ", "user 7"]
    assert [t.finish_reason for t in found] == ["stop", "stop", "length"]
    assert found[1].response_tokens == 9
    assert cuts == {"cut": 1, "cut_length_stops": 1}


def test_a_prompt_that_fills_the_context_is_named(config, named, tmp_path):
    model = small_context_copy(config.model, tmp_path)
    raw = json.loads((Path(model) / "config.json").read_text())
    (Path(model) / "config.json").write_text(json.dumps(raw | {"max_position_embeddings": 100}))
    with pytest.raises(W2SRError, match=r"a prompt of \d+ tokens fills the model's context of 100"):
        evaluate.main(dataclasses.replace(named, model=model), str(tmp_path / "w"))
