"""`--config.engine=vllm` on the stages that generate text."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from flax import nnx
from spawn import one_device

from w2sr_jax.core.config import DecodeConfig, OptimizerConfig, SamplingConfig, VllmConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.records import Prediction, Problem, Trace
from w2sr_jax.core.stage_config import DistillConfig, EvaluateConfig, GRPOLossConfig
from w2sr_jax.engine import vllm_offline
from w2sr_jax.micro.config import SizeConfig
from w2sr_jax.micro.pretrain import CONTEXT, new_model
from w2sr_jax.micro.tokenizer import save_tokenizer
from w2sr_jax.model import hf
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.stages import distill, evaluate, grpo

pytestmark = pytest.mark.vllm
# vLLM takes no head dimension below 32 on CPU.
SIZE = SizeConfig(hidden_size=64, intermediate_size=64, num_layers=1, num_heads=2, num_kv_heads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("wide"))


def save(root, tied=False):
    """A model with random weights and the micro tokenizer; its head is its own, or the embedding."""
    model = new_model(SIZE, 0)
    if tied:
        config = dataclasses.replace(model.config, tie_embeddings=True)
        model = Decoder(config, rngs=nnx.Rngs(0))
    save_tokenizer(root / "tokenizer", CONTEXT)
    hf.save(model, root / "model", "float32", tokenizer_from=root / "tokenizer")
    return str(root / "model")


def fast_learning(files, model, steps=20):
    """GRPO with vLLM whose weights change much at every step: a random model earns nothing, but entropy pays."""
    return files.grpo(
        model,
        steps=steps,
        engine="vllm",
        loss=GRPOLossConfig(kl=0.0, entropy=0.5),
        optimizer=OptimizerConfig(learning_rate=3e-2, schedule="constant", warmup_ratio=0.0),
    )


def by_key(rows):
    return {(row.problem_id, row.sample): (row.response, row.response_tokens, row.finish_reason) for row in rows}


def test_distill_and_evaluate_with_vllm_write_what_they_write_with_jax(files, model, one_device, decode, tmp_path):
    common = {
        "model": model,
        "problems": files.problems,
        "template": "plain",
        "sampling": SamplingConfig(max_tokens=6),
        "decode": decode,
        "mesh": one_device,
    }
    manifests, results = {}, {}
    for engine in ("jax", "vllm"):
        root = tmp_path / engine
        manifests[engine] = distill.main(DistillConfig(engine=engine, **common), str(root / "traces"))
        results[engine] = evaluate.main(EvaluateConfig(engine=engine, **common), str(root / "result"))
    traces = {engine: by_key(read_jsonl(tmp_path / engine / "traces/traces.jsonl", Trace)) for engine in results}
    answers = {
        engine: by_key(read_jsonl(tmp_path / engine / "result/predictions.jsonl", Prediction)) for engine in results
    }
    assert traces["jax"] == traces["vllm"] == answers["vllm"] == answers["jax"]
    assert manifests["vllm"]["engine"]["engine"] == "vllm"
    assert manifests["vllm"]["stop_token_ids"] == manifests["jax"]["stop_token_ids"]
    assert manifests["vllm"]["counts"] == manifests["jax"]["counts"]
    assert results["vllm"]["pass_at_1"] == results["jax"]["pass_at_1"]
    assert results["vllm"]["decoding"]["engine"] == "vllm"


def test_a_sampled_run_goes_on_with_what_is_missing(files, model, one_device, decode, tmp_path):
    config = DistillConfig(
        model=model,
        problems=files.problems,
        template="plain",
        sampling=SamplingConfig(max_tokens=6, temperature=1.0, n=2),
        engine="vllm",
        decode=decode,
        mesh=one_device,
        limit=4,
    )
    distill.main(config, str(tmp_path / "whole"))
    whole = read_jsonl(tmp_path / "whole/traces.jsonl", Trace)
    (tmp_path / "cut").mkdir()
    shutil.copy(tmp_path / "whole/identity.json", tmp_path / "cut")  # written before the first answer
    lines = (tmp_path / "whole/traces.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut/traces.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    distill.main(config, str(tmp_path / "cut"))
    assert by_key(read_jsonl(tmp_path / "cut/traces.jsonl", Trace)) == by_key(whole)


@pytest.mark.parametrize("tied", [True, False])
def test_grpo_hands_its_weights_to_vllm_at_every_step(files, tied, tmp_path):
    model = save(tmp_path, tied)
    config = fast_learning(files, model)
    grpo.main(config, str(tmp_path / "run"))
    rows = read_metrics(tmp_path / "run")
    assert len(rows) == 20
    assert max(row["sync_gap"] for row in rows) < 1e-4
    assert max(row["mismatch_max"] for row in rows) < 1e-4
    assert all(row["mismatch_mean"] <= row["mismatch_p99"] <= row["mismatch_max"] for row in rows)
    first, last = hf.load(model).embed[...], hf.load(tmp_path / "run").embed[...]
    assert np.abs(np.asarray(first) - np.asarray(last)).max() > 0.1  # there was something to hand over


def test_a_head_that_stays_behind_ends_the_run_before_anything_is_learnt_from_it(files, tmp_path, monkeypatch):
    """What vLLM 0.32 does on CPU by itself: without `load_directory`'s remedy the run has to stop."""
    monkeypatch.setattr(vllm_offline, "EXTENSION", "tests.stages.forgetful_vllm.Forgetful")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    with pytest.raises(W2SRError, match=r"^weight sync: vLLM \(offline\) does not compute with the trainer's weights"):
        grpo.main(fast_learning(files, save(tmp_path, tied=True)), str(tmp_path / "run"))
    assert not (tmp_path / "run/metrics.jsonl").exists() or read_metrics(tmp_path / "run") == []


def test_a_server_is_started_asked_given_weights_and_attached_to_by_another_run(files, tmp_path, decode, one_device):
    """One server, since each takes a minute to start: GRPO starts it, and a distill attaches while GRPO runs."""
    model = save(tmp_path)
    started = DecodeConfig(dtype="float32", batch_size=32, vllm=VllmConfig(mode="server"))
    config = dataclasses.replace(fast_learning(files, model, steps=3), decode=started)
    attached = {}
    ask = grpo.rollout

    def rollout(config, asker, *rest):
        if not attached:
            (url,) = asker.engine._backend.places
            attached["url"] = url
            decode = dataclasses.replace(started, vllm=VllmConfig(urls=(url,)))
            attached["manifest"] = distill.main(
                DistillConfig(
                    model=model,
                    problems=files.problems,
                    template="plain",
                    sampling=SamplingConfig(max_tokens=6),
                    engine="vllm",
                    decode=decode,
                    mesh=one_device,
                ),
                str(tmp_path / "traces"),
            )
        return ask(config, asker, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "rollout", rollout)
        grpo.main(config, str(tmp_path / "run"))
    rows = read_metrics(tmp_path / "run")
    assert len(rows) == 3
    assert max(row["sync_gap"] for row in rows) < 1e-4
    assert max(row["mismatch_max"] for row in rows) < 1e-4
    engine = attached["manifest"]["engine"]
    assert (engine["mode"], engine["servers"], engine["device_kind"]) == ("server", 1, "cpu")
    assert engine["version"][0].isdigit()
    local = DistillConfig(
        model=model,
        problems=files.problems,
        template="plain",
        sampling=SamplingConfig(max_tokens=6),
        decode=decode,
        mesh=one_device,
    )
    distill.main(local, str(tmp_path / "local"))
    answers = [by_key(read_jsonl(tmp_path / name / "traces.jsonl", Trace)) for name in ("traces", "local")]
    assert answers[0] == answers[1]
    with pytest.raises(W2SRError, match="no server answers"):  # it ended with the run that started it
        distill.main(
            dataclasses.replace(local, engine="vllm", decode=DecodeConfig(vllm=VllmConfig(urls=(attached["url"],)))),
            str(tmp_path / "gone"),
        )


def children(pid):
    """The processes that a process started."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
    return []


def test_three_kills_of_vllm_in_2000_problems_lose_and_double_nothing(model, tmp_path):
    """SIGKILL of the engine's process, not of ours, as the out-of-memory killer sends it."""
    problems = [Problem(id=f"p{i}", problem=f"{i % 100:02d}+{i % 7}=?", answer="3") for i in range(2000)]
    write_jsonl(tmp_path / "problems.jsonl", problems)
    path, log = tmp_path / "work/traces.jsonl", tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "w2sr_jax.cli",
        "distill",
        f"--workdir={tmp_path / 'work'}",
        "--config.engine=vllm",
    ]
    options = {
        "model": model,
        "problems": tmp_path / "problems.jsonl",
        "template": "plain",
        "sampling.max_tokens": 24,
        "decode.dtype": "float32",
        "decode.batch_size": 32,
    }
    command += [f"--config.{name}={value}" for name, value in options.items()]
    seen: set[str] = set()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=one_device())
    for share in (0.1, 0.4, 0.8):
        while len(path.read_bytes().splitlines() if path.exists() else []) < share * len(problems):
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.02)
        (engine,) = children(process.pid)
        os.kill(engine, signal.SIGKILL)
        seen |= {line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")}
    assert process.wait(300) == 0, log.read_text()[-2000:]
    assert log.read_text().count("was killed by SIGKILL") == 3
    text = path.read_text()
    assert seen <= set(text.splitlines(keepends=True))  # what was there stays, to the byte
    traces = read_jsonl(path, Trace)
    assert sorted((t.problem_id, t.sample) for t in traces) == sorted((p.id, 0) for p in problems)
    assert {t.finish_reason for t in traces} <= {"stop", "length"}
    again = DistillConfig(
        model=model,
        problems=str(tmp_path / "problems.jsonl"),
        template="plain",
        sampling=SamplingConfig(max_tokens=24),
        engine="vllm",
        decode=DecodeConfig(dtype="float32", batch_size=32),
    )
    distill.main(again, str(tmp_path / "unbroken"))
    assert by_key(read_jsonl(tmp_path / "unbroken/traces.jsonl", Trace)) == by_key(traces)
