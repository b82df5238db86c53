"""`w2sr distill`: traces and their manifest; a killed run loses and doubles nothing."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from w2sr_jax.core import cost
from w2sr_jax.core.config import PriceConfig, SamplingConfig
from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_json, read_jsonl, sha256_file, sha256_records, write_jsonl
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.core.stage_config import DistillConfig
from w2sr_jax.data.chat import TEMPLATES, load_tokenizer
from w2sr_jax.engine import identity
from w2sr_jax.engine import open as engines
from w2sr_jax.micro.pretrain import CONTEXT
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.stages import distill


@pytest.fixture(scope="module")
def config(files, guesser, one_device, decode):
    return DistillConfig(
        model=str(guesser / "export"),
        problems=files.problems,
        template="plain",
        sampling=SamplingConfig(max_tokens=6, temperature=1.0, n=2, seed=7),
        decode=dataclasses.replace(decode, batch_size=8),
        mesh=one_device,
        price=PriceConfig(usd_per_device_hour=1.0, source="a test"),
    )


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory):
    root = tmp_path_factory.mktemp("unbroken")
    return root, distill.main(config, str(root))


def traces(root):
    return read_jsonl(root / "traces.jsonl", Trace)


def by_key(found):
    return {(t.problem_id, t.sample): t for t in found}


def test_every_problem_is_answered_n_times(unbroken, guesser):
    found = traces(unbroken[0])
    assert len(found) == 32
    assert by_key(found).keys() == {(f"p{i:02d}", s) for i in range(16) for s in range(2)}
    assert {t.teacher for t in found} == {guesser.name}
    assert all(1 <= t.response_tokens <= 6 for t in found)


def test_the_manifest_is_the_provenance(unbroken, config, files):
    root, manifest = unbroken
    assert manifest == read_json(root / "manifest.json")
    found = traces(root)
    export = hf.resolve(config.model)
    assert manifest["teacher"] == config.model
    assert manifest["weights"] == hf.weights_hash(export)
    assert manifest["tokenizer_sha256"] == sha256_file(export / "tokenizer.json")
    assert manifest["problems_sha256"] == sha256_records(read_jsonl(files.problems, Problem))
    assert (manifest["template"], manifest["response_prefix"]) == ("plain", "")
    assert manifest["template_sha256"] == hashlib.sha256(TEMPLATES["plain"].encode()).hexdigest()
    assert manifest["sampling"] == {
        "max_tokens": 6, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "n": 2, "seed": 7
    }  # fmt: skip
    assert manifest["stop_token_ids"] == [0]
    assert "<|endoftext|>" in manifest["stop_reason"]
    assert (manifest["engine"]["engine"], manifest["engine"]["dtype"]) == ("jax", "float32")
    assert {"version", "device_kind", "batch_size"} <= manifest["engine"].keys()
    assert manifest["parallelism"] == {"data": 1, "fsdp": 1, "tensor": 1}
    assert manifest["counts"] == {
        "problems": 16,
        "traces": 32,
        "response_tokens": sum(t.response_tokens for t in found),
        "length_stops": sum(t.finish_reason == "length" for t in found),
        "failed": 0,
    }


def test_the_ledger_tells_what_it_cost(unbroken, config, files):
    root, manifest = unbroken
    export = hf.resolve(config.model)
    line = read_ledger(root)[0]
    assert (line.stage, line.tokens_out) == ("distill", manifest["counts"]["response_tokens"])
    prompts = {p.id: len(load_tokenizer(export).encode(p.problem)) for p in read_jsonl(files.problems, Problem)}
    assert line.tokens_in == 2 * sum(prompts.values())
    # Reading a prompt and writing after it attends as reading both would.
    whole = [prompts[t.problem_id] + t.response_tokens for t in traces(root)]
    shape = flops_shape(hf.load_config(export))
    assert line.flops == pytest.approx(sum(cost.prefill_flops(tokens=n, context=n, **shape) for n in whole))
    assert line.usd == pytest.approx(line.device_seconds / 3600)


@pytest.mark.parametrize("after", [1, 8, 9, 27])
def test_a_killed_run_goes_on_to_the_same_bytes(config, unbroken, tmp_path, monkeypatch, killed, after):
    kill_after(monkeypatch, killed, after)
    with pytest.raises(killed):
        distill.main(config, str(tmp_path))
    monkeypatch.undo()
    assert len(traces(tmp_path)) == after
    with open(tmp_path / "traces.jsonl", "a") as file:
        file.write('{"schema": "trace/1", "problem_id": "p0')  # what SIGKILL leaves of a line
    manifest = distill.main(config, str(tmp_path))
    assert (tmp_path / "traces.jsonl").read_bytes() == (unbroken[0] / "traces.jsonl").read_bytes()
    assert manifest == unbroken[1]
    (line,) = read_ledger(tmp_path)
    assert (line.attempts, line.tokens_out) == (2, unbroken[1]["counts"]["response_tokens"])


def kill_after(monkeypatch, killed, count):
    """The appender fails after so many traces."""
    append, calls = engines.JsonlAppender.append, 0

    def counted(self, *records):
        nonlocal calls
        calls += 1
        if calls > count and self.path.name == "traces.jsonl":
            raise killed
        append(self, *records)

    monkeypatch.setattr(engines.JsonlAppender, "append", counted)


def test_only_what_is_missing_is_asked(config, unbroken, tmp_path, monkeypatch):
    found = traces(unbroken[0])
    missing = {("p03", 1), ("p07", 0), ("p07", 1)}
    write_jsonl(tmp_path / "traces.jsonl", [t for t in found if (t.problem_id, t.sample) not in missing])
    shutil.copy(unbroken[0] / "identity.json", tmp_path)
    asked = []
    real = engines.open_engine

    def spy(*args):
        engine = real(*args)
        generate = engine.generate

        def noted(prompts, *args, **options):
            asked.extend(prompts)
            return generate(prompts, *args, **options)

        monkeypatch.setattr(engine, "generate", noted)
        return engine

    monkeypatch.setattr(engines, "open_engine", spy)
    distill.main(config, str(tmp_path))
    assert asked == ["03+4=?", "07+4=?"]
    assert by_key(traces(tmp_path)) == by_key(found)
    assert len(traces(tmp_path)) == 32


def test_a_problem_that_does_not_fit_is_named_before_the_engine_is_opened(config, files, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "open_engine", None)
    found = read_jsonl(Path(files.problems), Problem)
    write_jsonl(tmp_path / "long.jsonl", [*found[:3], dataclasses.replace(found[3], problem="1+" * CONTEXT + "1=?")])
    with pytest.raises(W2SRError, match=r"problem 'p03': \d+ tokens \+ max_tokens .* exceed the model's context"):
        distill.main(dataclasses.replace(config, problems=str(tmp_path / "long.jsonl")), str(tmp_path / "w"))


def test_a_run_that_is_finished_keeps_its_manifest_and_opens_no_engine(config, unbroken, monkeypatch):
    monkeypatch.setattr(engines, "open_engine", None)
    assert distill.main(config, str(unbroken[0])) == unbroken[1]


@pytest.fixture
def own(config, files, tmp_path):
    """A config whose model and problems may be changed, and what changes each where it lies."""
    model = shutil.copytree(hf.resolve(config.model), tmp_path / "model")
    problems = tmp_path / "problems.jsonl"
    shutil.copy(files.problems, problems)

    def other_problems():
        found = read_jsonl(problems, Problem)
        write_jsonl(problems, [dataclasses.replace(found[0], problem="1+1=?"), *found[1:]])

    def other_weights():
        data = bytearray((model / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (model / "model.safetensors").write_bytes(data)

    def other_tokenizer():
        raw = json.loads((model / "tokenizer.json").read_text())
        (model / "tokenizer.json").write_text(json.dumps(raw, indent=3))

    def other(name, **values):
        raw = json.loads((model / name).read_text()) if (model / name).exists() else {}
        (model / name).write_text(json.dumps(raw | values))

    changes = {
        "problems": other_problems,
        "weights": other_weights,
        "tokenizer": other_tokenizer,
        "config.json or stop tokens": lambda: other("config.json", rms_norm_eps=0.1),
        "stop tokens than": lambda: other("generation_config.json", eos_token_id=7),
    }
    return dataclasses.replace(config, model=str(model), problems=str(problems)), changes


@pytest.mark.parametrize("what", ["problems", "weights", "tokenizer", "config.json or stop tokens", "stop tokens than"])
@pytest.mark.parametrize("finished", [False, True])
def test_answers_to_what_has_changed_since_are_refused(own, tmp_path, monkeypatch, killed, what, finished):
    config, changes = own
    if not finished:
        kill_after(monkeypatch, killed, 5)
        with pytest.raises(killed):
            distill.main(config, str(tmp_path / "w"))
        monkeypatch.undo()
    else:
        distill.main(config, str(tmp_path / "w"))
    before = (tmp_path / "w/traces.jsonl").read_bytes()
    changes[what]()
    with pytest.raises(W2SRError, match=rf"w: its answers are of other .*{what} .*; use another --workdir") as error:
        distill.main(config, str(tmp_path / "w"))
    assert "\n" not in str(error.value)
    assert (tmp_path / "w/traces.jsonl").read_bytes() == before


def test_another_text_of_the_template_is_another_identity(own, tmp_path, monkeypatch):
    config, _ = own
    distill.main(config, str(tmp_path / "w"))
    monkeypatch.setitem(TEMPLATES, "plain", "{input} ")
    with pytest.raises(W2SRError, match="w: its answers are of other template than "):
        distill.main(config, str(tmp_path / "w"))


def test_answers_that_nothing_vouches_for_are_refused(config, unbroken, tmp_path):
    shutil.copy(unbroken[0] / "traces.jsonl", tmp_path)
    with pytest.raises(W2SRError, match=r"traces\.jsonl: no identity\.json says .*; use another --workdir"):
        distill.main(config, str(tmp_path))


def test_weights_that_lie_untouched_are_not_read_again(own, tmp_path, monkeypatch):
    config, _ = own
    distill.main(config, str(tmp_path / "w"))
    read = []
    real = hf.weights_hash
    monkeypatch.setattr(identity.hf, "weights_hash", lambda path: read.append(path) or real(path))
    distill.main(config, str(tmp_path / "w"))
    assert read == []
    os.utime(hf.resolve(config.model) / "model.safetensors")  # touched, not changed
    distill.main(config, str(tmp_path / "w"))
    assert len(read) == 1


def test_a_problems_samples_depend_on_neither_order_nor_limit(config, files, unbroken, tmp_path):
    problems = read_jsonl(files.problems, Problem)
    write_jsonl(tmp_path / "back.jsonl", problems[::-1])
    back = dataclasses.replace(config, problems=str(tmp_path / "back.jsonl"), limit=5)
    distill.main(back, str(tmp_path / "back"))
    found, whole = by_key(traces(tmp_path / "back")), by_key(traces(unbroken[0]))
    assert found == {key: whole[key] for key in whole if key[0] >= "p11"}


def test_another_seed_gives_other_samples(config, unbroken, tmp_path):
    other = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, seed=8))
    distill.main(other, str(tmp_path))
    assert by_key(traces(tmp_path)) != by_key(traces(unbroken[0]))


def test_a_forced_prefix_begins_every_trace(config, tmp_path):
    forced = dataclasses.replace(config, response_prefix="<work>", limit=3)
    manifest = distill.main(forced, str(tmp_path))
    assert manifest["response_prefix"] == "<work>"
    assert all(t.response.startswith("<work>") and t.response_tokens >= 2 for t in traces(tmp_path))
