import json

import numpy as np
import pytest

from w2sr_jax.core.config import OptimizerConfig
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.records import GradedTrace, Problem, Trace
from w2sr_jax.engine.base import Sampling
from w2sr_jax.engine.jax_engine import JaxEngine
from w2sr_jax.micro.config import MicroConfig, PretrainConfig, SizeConfig, SplitsConfig
from w2sr_jax.micro.pretrain import new_model
from w2sr_jax.micro.task import SPLITS
from w2sr_jax.micro.tokenizer import END, VOCABULARY
from w2sr_jax.model import hf
from w2sr_jax.stages import micro

TINY = SizeConfig(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=1)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    root = tmp_path_factory.mktemp("problems")
    micro.main(MicroConfig(what="problems", splits=SplitsConfig(train=40, validation=10, test=20)), str(root))
    return root


@pytest.fixture(scope="module")
def base(problems, tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    pretrain = PretrainConfig(max_steps=4, validate_every=2, rows=2, optimizer=OptimizerConfig(learning_rate=1e-3))
    config = MicroConfig(what="base", problems=str(problems), size=TINY, pretrain=pretrain)
    return root, micro.main(config, str(root))


def test_problems_are_written_as_disjoint_files(problems):
    splits = {name: read_jsonl(problems / f"{name}.jsonl", Problem) for name in SPLITS}
    assert {name: len(found) for name, found in splits.items()} == {"train": 40, "validation": 10, "test": 20}
    assert len({p.problem for found in splits.values() for p in found}) == 70
    assert len({p.id for found in splits.values() for p in found}) == 70


def test_a_base_model_is_an_ordinary_model_directory(base):
    root, result = base
    assert result["steps"] == 4
    assert hf.load_config(root / "export").eos_token_ids == (VOCABULARY[END],)
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= {
        path.name for path in (root / "export").iterdir()
    }
    engine = JaxEngine(root / "export")
    (completion,) = engine.generate(["37+5=?"], Sampling(max_tokens=4, stop_token_ids=(VOCABULARY[END],)))[0]
    assert 1 <= len(completion.token_ids) <= 4


def test_pretraining_reports_validation_and_its_cost(base):
    root, result = base
    rows = read_metrics(root)
    assert [row["step"] for row in rows] == [1, 3]
    assert all(0.0 <= row["careful_pass_at_1"] <= 1.0 for row in rows)
    (line,) = [json.loads(text) for text in (root / "ledger.jsonl").read_text().splitlines()]
    assert line["tokens_in"] == result["tokens"] > 0
    assert line["flops"] > 0


def test_pretraining_stops_at_its_target(problems, tmp_path):
    pretrain = PretrainConfig(max_steps=4, validate_every=1, rows=2, target=0.0)
    config = MicroConfig(what="base", problems=str(problems), size=TINY, pretrain=pretrain)
    assert micro.main(config, str(tmp_path))["steps"] == 1


def test_base_weights_have_the_scale_of_their_width():
    model = new_model(SizeConfig(), 0)
    assert np.std(model.param("q")[...]) == pytest.approx(128**-0.5, rel=0.05)
    assert np.std(model.param("down")[...]) == pytest.approx(512**-0.5 / 8**0.5, rel=0.05)
    assert np.std(model.param("embed")[...]) == pytest.approx(0.5, rel=0.1)
    assert sum(p.size for p in map(np.asarray, (model.param(n)[...] for n in ("embed", "lm_head")))) == 2 * 21 * 128


def test_scrambling_a_graded_trace_forgets_its_grade(tmp_path):
    trace = GradedTrace(
        problem_id="train-0001",
        sample=0,
        response=r"<work>37+5=42\boxed{42}",
        response_tokens=13,
        finish_reason="stop",
        teacher="teacher",
        extracted="42",
        correct=True,
        grader="g",
        hygiene=[],
    )
    write_jsonl(tmp_path / "all.jsonl", [trace])
    made = micro.main(MicroConfig(what="scramble", traces=str(tmp_path / "all.jsonl")), str(tmp_path / "out"))
    (found,) = read_jsonl(tmp_path / "out" / "traces.jsonl", Trace)
    assert made == {"traces": 1}
    assert found.response.startswith("<work>37+5=")
    assert found.teacher == "teacher scrambled"


@pytest.mark.parametrize(("what", "key"), [("base", "problems"), ("scramble", "traces")])
def test_a_missing_input_is_named(what, key, tmp_path):
    with pytest.raises(UsageError, match=rf"config\.{key}: required for what={what}"):
        micro.main(MicroConfig(what=what), str(tmp_path))
