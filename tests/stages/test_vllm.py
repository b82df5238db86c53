"""`--config.engine=vllm` on the stages that generate text."""

import pytest

from w2sr_jax.core.config import SamplingConfig
from w2sr_jax.core.records import Prediction, Trace, read_jsonl
from w2sr_jax.core.stage_config import DistillConfig, EvaluateConfig
from w2sr_jax.micro.config import SizeConfig
from w2sr_jax.micro.pretrain import CONTEXT, new_model
from w2sr_jax.micro.tokenizer import save_tokenizer
from w2sr_jax.model import hf
from w2sr_jax.stages import distill, evaluate

pytestmark = pytest.mark.vllm
# vLLM takes no head dimension below 32 on CPU.
SIZE = SizeConfig(hidden_size=64, intermediate_size=64, num_layers=1, num_heads=2, num_kv_heads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("wide")
    save_tokenizer(root / "tokenizer", CONTEXT)
    hf.save(new_model(SIZE, 0), root / "model", "float32", tokenizer_from=root / "tokenizer")
    return str(root / "model")


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
    lines = (tmp_path / "whole/traces.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut/traces.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    distill.main(config, str(tmp_path / "cut"))
    assert by_key(read_jsonl(tmp_path / "cut/traces.jsonl", Trace)) == by_key(whole)
