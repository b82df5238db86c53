"""`w2sr plan` on CPU meshes, and, where libtpu is installed, for TPU slices."""

import dataclasses
import importlib.util
import json

import jax
import pytest

from w2sr_jax.core.config import MeshConfig, OptimizerConfig, PriceConfig
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.core.stage_config import TrainConfig
from w2sr_jax.core.tool_config import PlanConfig
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.planning import child
from w2sr_jax.planning.steps import sft_step
from w2sr_jax.planning.table import render
from w2sr_jax.stages import plan

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
FACTS = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": True,
}
REQUIRED = {
    *("fits", "peak_bytes_per_chip", "hbm_bytes_per_chip", "flops_per_step", "step_seconds_estimate"),
    *("collectives", "basis"),
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(FACTS))
    return str(path)


def small(facts):
    return PlanConfig(
        model=facts,
        topology="cpu:4",
        batch_size=8,
        max_length=64,
        train=TrainConfig(loss_chunk=32),
        decode_rows=6,
        decode_slots=32,
    )


@pytest.fixture
def config(facts):
    return small(facts)


@pytest.fixture(scope="module")
def planned(facts, tmp_path_factory):
    """(workdir, its plan) of the small config, compiled once."""
    workdir = tmp_path_factory.mktemp("planned")
    return workdir, plan.main(small(facts), str(workdir))


def test_a_plan_says_what_the_same_step_compiled_here_says(planned):
    found = planned[1]
    mesh = make_mesh(MeshConfig(), jax.devices()[:4])
    train = TrainConfig(loss_chunk=32, grad_accum=2)
    here = sft_step(ModelConfig.from_hf(FACTS), OptimizerConfig(), train, mesh, 8, 64).traced.lower().compile()
    stats = here.memory_analysis()
    whole = stats.argument_size_in_bytes + stats.temp_size_in_bytes
    assert found["peak_bytes_per_chip"] == pytest.approx(whole, rel=0.1)
    memory = found["memory"]
    assert sum(memory.values()) == found["peak_bytes_per_chip"]
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)


def test_a_plan_has_what_a_later_run_is_held_against(planned):
    workdir, found = planned
    assert json.loads((workdir / "plan.json").read_text()) == found
    assert set(found) >= REQUIRED
    assert found["fits"]
    assert found["collectives"]
    assert found["step_seconds_estimate"] is None  # of a CPU
    assert found["train"]["grad_accum"] == 2
    assert found["decode"]["rows"] == 8  # 6, rounded up to the four groups
    assert set(found["decode"]) >= REQUIRED
    assert "a token for each of 8 rows" in found["decode"]["basis"]
    assert (workdir / "ledger.jsonl").exists()


def test_a_second_plan_compiles_nothing_and_says_the_same(planned, config, monkeypatch, capsys):
    workdir, first = planned
    monkeypatch.setattr(child, "_ask", lambda *arguments: pytest.fail("compiled again"))
    assert plan.main(config, str(workdir)) == first
    shown = capsys.readouterr().out
    assert "on cpu:4 (4 chips): fits" in shown
    assert "train it so: w2sr sft --config.mesh.data=1 --config.mesh.fsdp=4" in shown
    assert all(
        f"--config.{flag}" in shown for flag in ("data.batch_size=8", "data.max_length=64", "train.loss_chunk=32")
    )
    assert "what does not fit: w2sr sft" in render(first | {"fits": False})


def test_a_suggestion_is_the_best_of_what_was_tried(config, tmp_path):
    config.topology, config.suggest, config.suggest_compiles, config.decode_rows = "cpu:2", True, 2, 0
    found = plan.main(config, str(tmp_path / "w"))
    assert len(found["tried"]) == 2
    assert found["fits"]
    assert found["flags"] in {tried["flags"] for tried in found["tried"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": MeshConfig(fsdp=3)}, r"config.mesh: .* does not make the 4 chips of cpu:4"),
        ({"batch_size": 6}, r"config.batch_size: 6 rows do not split over data x fsdp = 4 groups"),
        ({"rows_per_group": 3}, r"config.rows_per_group: 8 rows do not split so over 4 groups"),
        ({"mesh": MeshConfig(fsdp=1, tensor=3), "topology": "cpu:3"}, r"dimension .* is not divisible by 3"),
        ({"topology": "v9:4"}, r"config.topology: 'v9:4' is none"),
    ],
)
def test_what_does_not_go_together_is_named(config, changes, message, tmp_path):
    config = dataclasses.replace(config, **changes)
    with pytest.raises(UsageError, match=message):
        plan.main(config, str(tmp_path / "w"))


def test_a_model_without_a_config_is_named(config, tmp_path):
    config.model = str(tmp_path / "nowhere")
    with pytest.raises(W2SRError, match=r"config.model: .*nowhere: no config.json there"):
        plan.main(config, str(tmp_path / "w"))


def test_a_compiler_that_takes_too_long_or_crashes_is_one_line(config, tmp_path):
    config.compile_limit_s = 1.0
    with pytest.raises(W2SRError, match=r"compiling the train step for cpu:4 took more than 1 s"):
        plan.main(config, str(tmp_path / "w"))
    assert child.last_error("ok\nXlaRuntimeError: INTERNAL: broken\nmore") == "XlaRuntimeError: INTERNAL: broken"


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_a_tpu_slice_without_libtpu_says_how_to_get_it(config, tmp_path):
    config.topology = "v6e:2x2"
    with pytest.raises(W2SRError, match=r"takes libtpu, which needs no TPU: `make setup EXTRAS=plan`"):
        plan.main(config, str(tmp_path / "w"))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs the plan extra")
@pytest.mark.parametrize("topology", ["v5e:2x4", "v5p:2x2x1", "v6e:2x2"])
def test_a_tpu_plan_has_a_time_a_cost_and_the_options_of_its_mesh(config, topology, tmp_path):
    config.topology = topology
    config.prices = {topology[:3]: PriceConfig(usd_per_device_hour=1.0, source="this test")}
    found = plan.main(config, str(tmp_path / "w"))
    assert found["fits"]
    assert found["versions"]["libtpu"]
    assert "xla_jf_spmd_threshold_for_windowed_einsum_mib" in found["compiler_options"]
    assert ("xla_tpu_scoped_vmem_limit_kib" in found["compiler_options"]) == (topology != "v5p:2x2x1")
    assert 0 < found["step_seconds_parts"]["at_peak_flops"] < found["step_seconds_estimate"] < 1
    assert found["usd_per_billion_tokens"] > 0
    assert found["collectives"]
    assert sum(found["memory"].values()) == found["peak_bytes_per_chip"]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs the plan extra")
def test_a_tpu_plan_that_does_not_fit_says_by_how_much(config, tmp_path):
    config.topology, config.max_length, config.decode_rows = "v5e:2x2", 4096, 0
    config.batch_size, config.rows_per_group = 4096, 1024
    config.train.loss_chunk = 4096
    found = plan.main(config, str(tmp_path / "w"))
    assert not found["fits"]
    assert found["peak_bytes_per_chip"] - found["hbm_bytes_per_chip"] == found["over_bytes_per_chip"] > 0
    assert found["step_seconds_estimate"] is None
    assert any("rows_per_group=1" in line for line in found["advice"])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs the plan extra")
def test_a_tpu_plan_of_decoding_is_of_one_token_whatever_the_cache_may_hold(config, tmp_path):
    config.topology, config.decode_rows = "v5e:2x2", 8

    def decoding(slots):
        config.decode_slots = slots
        planner = plan.Planner(config, tmp_path)
        found = planner.decode(planner.asked())
        return found, {kind: total["count"] for kind, total in found["collectives"].items()}

    (short, moved), (long, moved_long) = decoding(256), decoding(1024)
    assert moved == moved_long
    # Only attention reads four times as many slots.
    assert short["step_seconds_estimate"] <= long["step_seconds_estimate"] < 2 * short["step_seconds_estimate"]
    assert short["tokens_per_second"] == pytest.approx(8 / short["step_seconds_estimate"])
    assert 0 < short["step_seconds_estimate"] < 1e-3
