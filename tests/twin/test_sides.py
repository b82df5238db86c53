"""The sides' processes: what they lack, several ranks, and the stage from end to end. No wall time."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from w2sr_jax.core.allocator import HELD, KEPT
from w2sr_jax.core.command_line import load_config_file
from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import read_json
from w2sr_jax.stages import compare
from w2sr_jax.twin import jax_train, sides, workloads
from w2sr_jax.twin.dump import write_arrays
from w2sr_jax.twin.engines import platform_of
from w2sr_jax.twin.jax_train import JaxSFT
from w2sr_jax.twin.side import MissingPackage, Side, environment, generating
from w2sr_jax.twin.sides import Sides, groups
from w2sr_jax.twin.workloads import write_batches

REQUEST = {"model": "nowhere", "total": 1, "threads": 1, "compile": False}


def tiny():
    return load_config_file("configs/compare.py:tiny")


def blocked(root: Path, *packages: str) -> dict[str, str]:
    """An environment in which packages are not to be had."""
    for package in packages:
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").write_text(
            f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')\n"
        )
    env = environment(1, os.environ)
    return env | {"PYTHONPATH": f"{root}{os.pathsep}{env['PYTHONPATH']}"}


def test_both_sides_get_the_same_environment_and_no_cache_of_compiled_programs():
    env = environment(2, {"HOME": "/h", "JAX_COMPILATION_CACHE_DIR": "/c", "XLA_FLAGS": "--x", "OMP_NUM_THREADS": "7"})
    assert env["HOME"] == "/h"
    assert (env["OMP_NUM_THREADS"], env["GLIBC_TUNABLES"]) == ("2", KEPT)
    assert generating(env) == env | {"GLIBC_TUNABLES": HELD}
    assert not {"JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"} & set(env)


def test_a_cpu_comparison_hides_gpus_from_pytorch():
    assert environment(1, {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(1, {"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == "0"


def test_sides_are_alive_together_on_a_cpu_and_one_by_one_on_an_accelerator():
    requests = {"ours": {}, "eager": {}}
    assert groups(requests, {"JAX_PLATFORMS": "cpu"}) == [requests]
    tpu = {"TPU_ACCELERATOR_TYPE": "v6e-1", "CUDA_VISIBLE_DEVICES": ""}
    assert groups(requests, tpu) == [{"ours": {}}, {"eager": {}}]


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(MissingPackage, match=r"^torch$"):
        Side("eager", REQUEST | {"side": "torch_sft"}, blocked(tmp_path, "torch"))


def test_what_a_side_dies_of_is_one_line(tmp_path):
    with pytest.raises(W2SRError, match=r"ours: .*nowhere"):
        Side("ours", REQUEST | {"side": "jax_generate", "prompts": [], "loads": {}, "dtype": "float32", "batch": 1},
             environment(1, os.environ))  # fmt: skip


@pytest.fixture
def training(tmp_path):
    """(a request of a tiny SFT, its directory), whose batches are there."""
    config = compare.inputs(tiny(), tmp_path)
    config.sft.data.batch_size, config.sft.data.max_length = 4, 64
    write_batches(config, tmp_path / "batches", 3)
    return REQUEST | {
        "side": "torch_sft",
        "model": config.sft.model,
        "batches": str(tmp_path / "batches"),
        "optimizer": dataclasses.asdict(config.sft.optimizer),
        "train": dataclasses.asdict(config.sft.train),
        "mesh": dataclasses.asdict(config.sft.mesh),
        "total": 3,
    }


@pytest.mark.torch
def test_a_peer_on_another_kind_of_device_than_ours_is_left_out_with_its_reason(training):
    with Sides({"eager": training}, environment(1, os.environ), platform="gpu") as found:
        assert not found.alive
    assert found.missing["eager"].startswith("it runs on cpu and ours on gpu, which is no comparison")
    assert "JAX_PLATFORMS=cpu" in found.missing["eager"]


class Started:
    """In the place of a side's processes: how they were started."""

    about, startup_seconds = {"platform": "gpu"}, 1.0

    def __init__(self, name, request, env, ranks):
        self.name, self.env, self.ranks = name, env, ranks

    def close(self):
        pass


def test_pytorch_takes_a_process_a_gpu_and_one_gpu_where_our_mesh_is_of_one_device(monkeypatch):
    monkeypatch.setattr(sides, "Side", Started)
    monkeypatch.setattr(sides, "nvidia_gpus", lambda env: ["H100"] * 4)
    for mesh, count, visible in ((MeshConfig(), 4, "2,3,4,5"), (MeshConfig(data=1, fsdp=1, tensor=1), 1, "2")):
        requests = {
            "ours": {"side": "jax_sft", "mesh": dataclasses.asdict(mesh)},
            "trl": {"side": "trl_sft", "mesh": dataclasses.asdict(mesh)},
            "vllm": {"side": "vllm_generate"},
        }
        with Sides(requests, {"CUDA_VISIBLE_DEVICES": "2,3,4,5"}) as found:
            assert {name: one.ranks for name, one in found.alive.items()} == {"ours": 1, "trl": count, "vllm": 1}
            assert found.alive["trl"].env["CUDA_VISIBLE_DEVICES"] == visible


def test_our_devices_are_those_of_the_mesh(monkeypatch):
    eight = [SimpleNamespace(platform="gpu", device_kind="NVIDIA H200", memory_stats=dict)] * 8
    monkeypatch.setattr(jax_train.jax, "local_devices", lambda: eight)
    side = JaxSFT.__new__(JaxSFT)
    side._compile = SimpleNamespace(seconds=0.0)
    for mesh, devices in ((None, 1), (SimpleNamespace(size=8), 8)):
        side.mesh = mesh
        assert side.describe()["devices"] == devices


def test_vllm_s_device_is_named_as_jax_names_its_platform():
    assert [platform_of(kind) for kind in ("cpu", "TPU v6e", "NVIDIA H200")] == ["cpu", "tpu", "gpu"]


def test_the_rank_that_fails_is_read_while_the_first_one_waits_for_it(tmp_path, monkeypatch):
    program = tmp_path / "worker"
    program.write_text(
        '#!/bin/bash\nread line; echo \'{"ready": {}, "startup_seconds": 0}\'; read line\n'
        'case $RANK in 1) echo \'{"error": "out of memory"}\' ;; *) exec sleep 60 ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr("w2sr_jax.twin.side.sys.executable", str(program))
    side = Side("eager", {}, os.environ, ranks=3)
    try:
        with pytest.raises(W2SRError, match=r"^eager: out of memory$"):
            side.ask({})
    finally:
        for child in side._children:
            child.close()


def test_a_peer_s_package_that_was_installed_or_renewed_measures_again(tmp_path, monkeypatch):
    began = []

    def measure(directory):
        began.append(directory)
        return {"sides": {}}

    for _ in range(2):
        workloads._once(tmp_path / "work", measure)
    assert len(began) == 1
    (tmp_path / "site" / "flash_attn-9.9.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "flash_attn-9.9.dist-info" / "METADATA").write_text("Name: flash_attn\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert workloads.packages()["flash_attn"] == "9.9"
    assert workloads._once(tmp_path / "work", measure)["basis"]["flash_attn"] == "9.9"
    assert len(began) == 2


def test_without_torch_trl_and_vllm_the_columns_are_left_out_and_it_is_said_how_to_get_them(
    tmp_path, monkeypatch, capsys
):
    env = blocked(tmp_path / "blocked", "torch", "trl", "datasets")
    monkeypatch.setattr(compare, "environment", lambda threads, base: env)
    # vLLM is looked for, not imported: a machine that has it runs it here, too.
    config = dataclasses.replace(tiny(), grpo_shapes=(), parity_steps=2)
    assert compare.main(config, str(tmp_path / "out")) == 0
    found = read_json(tmp_path / "out" / "compare.json")
    named = {one["column"]: one["why"] for one in found["missing"]}
    assert named["transformers, eager"] == "torch is not installed (make setup EXTRAS=torch)"
    assert named["TRL's SFTTrainer"] == "trl is not installed (make setup EXTRAS=trl)"
    assert {"TRL's SFTTrainer", "transformers' generate"} <= set(named)
    assert not [row for row in found["rows"] if "transformers" in row["against"]]
    assert "Left out: transformers, eager: torch is not installed" in capsys.readouterr().out


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "loss", "norm"), [("float32", 1e-5, 1e-4), ("bfloat16", 1e-3, 5e-2)])
def test_two_ranks_of_fsdp_follow_the_curve_of_one(training, dtype, loss, norm):
    request = training | {"train": training["train"] | {"grad_accum": 2, "dtype": dtype}}
    curves = []
    for ranks in (1, 2):
        side = Side("eager", request, environment(1, os.environ), ranks)
        try:
            curves.append(side.ask({"do": "steps", "first": 0, "count": 3}))
        finally:
            side.close()
    assert curves[0]["loss"] == pytest.approx(curves[1]["loss"], rel=loss)
    assert curves[0]["grad_norm"] == pytest.approx(curves[1]["grad_norm"], rel=norm)


@pytest.mark.torch
@pytest.mark.slow
def test_the_tiny_comparison_from_end_to_end_with_a_peer_that_fails_in_the_middle(tmp_path, monkeypatch):
    env = environment(1, os.environ) | {"CC": "/no/compiler", "CXX": "/no/compiler"}  # torch.compile needs one
    monkeypatch.setattr(compare, "environment", lambda threads, base: env)
    config = dataclasses.replace(tiny(), peers=("compile", "eager"))
    assert compare.main(config, str(tmp_path)) == 0
    found = read_json(tmp_path / "compare.json")
    (left_out,) = (one for one in found["missing"] if one["column"] == "transformers, torch.compile")
    assert left_out["why"].startswith("it failed: compile: ")
    assert "No working C++ compiler found" in left_out["why"]
    assert found["parity_holds"]
    assert {one["workload"].split(",")[0] for one in found["parity"]} == {"sft", "grpo"}
    for row in found["rows"]:
        assert set(row) == {"what", "ours", "peer", "unit", "against", "runs", "ratio", "machine"}
    assert {"training step", "GRPO update", "generation"} <= {row["what"].split(",")[0] for row in found["rows"]}
    assert {row["against"] for row in found["rows"] if "training" in row["what"]} == {"transformers, eager"}
    assert found["price"]["usd_per_device_hour"] == pytest.approx(0.0248)
    text = (tmp_path / "compare.md").read_text()
    assert "| yes" in text

    # Measured again by the same code it is the same; with a curve that is not ours it fails, loudly.
    measured = tmp_path / "workloads" / "sft-4x64" / "measured.json"
    changed = json.loads(measured.read_text())
    changed["parity"]["eager"] |= {"loss_gap": 0.1, "holds": False}
    measured.write_text(json.dumps(changed))
    monkeypatch.setattr(sides, "Side", None)
    assert compare.main(config, str(tmp_path)) == 1
    assert (tmp_path / "compare.md").read_text().count("PARITY FAILED: transformers, eager") == 1


def test_arrays_appear_whole_or_not_at_all(tmp_path):
    write_arrays(tmp_path / "0", {"a": [1, 2]})
    write_arrays(tmp_path / "0", {"a": [3]})
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
