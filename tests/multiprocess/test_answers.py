"""Several processes share one workdir of answers: one writes, all end alike, all refuse what it does not belong to."""

import dataclasses
import shutil

import pytest
import tasks
from spawn import spawn

from w2sr_jax.core.config import DecodeConfig, SamplingConfig
from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.files import read_json, read_jsonl, write_jsonl
from w2sr_jax.core.records import Prediction, Problem
from w2sr_jax.core.stage_config import EvaluateConfig

TIMEOUT_S = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_two_processes_evaluate_as_one_and_refuse_changed_problems_alike(inputs, tmp_path):
    shutil.copy(inputs / "problems.jsonl", tmp_path)
    config = EvaluateConfig(
        model=str(inputs / "model"),
        problems=str(tmp_path / "problems.jsonl"),
        template="plain",
        limit=4,
        sampling=SamplingConfig(max_tokens=4),
        decode=DecodeConfig(dtype="float32", batch_size=4),
        mesh=tasks.mesh_config((1, 2, 1)),
    )
    argv = ["-m", "w2sr_jax.cli", "evaluate", f"--workdir={tmp_path / 'w'}", *tasks.flags_of(config)]
    for done in spawn(2, argv, tmp_path / "logs").wait(TIMEOUT_S):
        assert done.code == 0, done.output[-2000:]
    assert (
        len(read_jsonl(tmp_path / "w/predictions.jsonl", Prediction)) == read_json(tmp_path / "w/result.json")["n"] == 4
    )
    assert len(read_ledger(tmp_path / "w")) == 1
    assert not (tmp_path / "w/responses.jsonl").exists()

    problems = read_jsonl(tmp_path / "problems.jsonl", Problem)
    write_jsonl(tmp_path / "problems.jsonl", [dataclasses.replace(problems[0], answer="4"), *problems[1:]])
    for done in spawn(2, argv, tmp_path / "again").wait(TIMEOUT_S):
        assert (done.code, len(done.lines)) == (1, 1), done.output[-2000:]
        assert "/w: its answers are of other problems than what the config names now; use another" in done.lines[0]
