"""The score stage: surprisals are the loss of SFT, trace by trace."""

import dataclasses
import math
from pathlib import Path

import pytest

from w2sr_jax.core import cost
from w2sr_jax.core.config import DataConfig
from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.records import Trace, TraceScore
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.core.trace_config import ScoreConfig
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.stages import report, score, sft
from w2sr_jax.traces import surprise


@pytest.fixture
def config(files, one_device) -> ScoreConfig:
    data = DataConfig(problems=files.problems, traces=files.traces, template="plain", max_length=32, batch_size=5)
    return ScoreConfig(model=files.model, data=data, dtype="float32", loss_chunk=32, mesh=one_device)


def test_the_mean_surprisal_is_the_first_loss_of_sft(config, files, tmp_path):
    made = score.main(config, str(tmp_path / "score"))
    scores = read_jsonl(tmp_path / "score" / "scores.jsonl", TraceScore)
    assert made["scored"] == made["traces"] == len(scores) == 16
    tokens = sum(s.tokens for s in scores)
    whole = files.sft(steps=1, data=dataclasses.replace(config.data, batch_size=16, packing=False))
    sft.main(whole, str(tmp_path / "sft"))
    assert sum(s.surprisal * s.tokens for s in scores) / tokens == pytest.approx(
        read_metrics(tmp_path / "sft")[0]["loss"], abs=1e-4
    )


def test_scores_do_not_depend_on_the_batch(config, tmp_path):
    for rows in (3, 16):
        changed = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=rows))
        score.main(changed, str(tmp_path / str(rows)))
    one, other = (read_jsonl(tmp_path / n / "scores.jsonl", TraceScore) for n in ("3", "16"))
    assert [s.problem_id for s in one] == [f"p{i:02d}" for i in range(16)]
    assert all(math.isclose(a.surprisal, b.surprisal, abs_tol=1e-5) for a, b in zip(one, other, strict=True))


def test_the_ledger_counts_each_trace_as_long_as_it_is(config, files, tmp_path):
    traces = read_jsonl(Path(files.traces), Trace)
    longer = [dataclasses.replace(t, response=t.response * (1 + 2 * (i % 2))) for i, t in enumerate(traces)]
    write_jsonl(tmp_path / "traces.jsonl", longer)
    data = dataclasses.replace(config.data, traces=str(tmp_path / "traces.jsonl"), max_length=64)
    score.main(dataclasses.replace(config, data=data), str(tmp_path / "score"))
    lengths = [len(example.tokens) for example in surprise.encode(data, longer, Path(files.model))]
    assert len(set(lengths)) > 1
    shape = flops_shape(hf.load_config(files.model))
    (line,) = read_ledger(tmp_path / "score")
    assert line.tokens_in == sum(lengths)
    assert line.flops == pytest.approx(sum(cost.prefill_flops(tokens=n, context=n, **shape) for n in lengths))


def test_traces_that_do_not_fit_are_named(config, tmp_path):
    short = dataclasses.replace(config, data=dataclasses.replace(config.data, max_length=8))
    with pytest.raises(W2SRError, match="no trace fits into max_length=8"):
        score.main(short, str(tmp_path))


def test_the_trace_lab_has_the_perplexity_of_these_scores(config, files, tmp_path):
    score.main(config, str(tmp_path / "score"))
    scores = read_jsonl(tmp_path / "score" / "scores.jsonl", TraceScore)
    lab = ReportConfig(
        traces=(f"all={files.traces}",),
        problems=files.problems,
        score_model=files.model,
        score_template="plain",
        score_max_length=32,
        score_dtype="float32",
    )
    found = report.main(lab, str(tmp_path / "lab"))["trace_lab"]["sets"]["all"]
    mean = sum(s.surprisal for s in scores) / len(scores)
    assert found["surprisal"]["mean"] == pytest.approx(mean, abs=1e-4)
    page = (tmp_path / "lab" / "report.html").read_text()
    assert f"{math.exp(mean):.1f} [" in page or f"{math.exp(mean):.2f} [" in page
    assert "No perplexity" not in page
