"""The PyTorch twin computes what the product computes, and a twin that does not is found out."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from w2sr_jax.core.config import DataConfig, MeshConfig, OptimizerConfig
from w2sr_jax.core.stage_config import GRPOLossConfig, SFTConfig, TrainConfig
from w2sr_jax.core.tool_config import CompareConfig, RandomConfig
from w2sr_jax.twin import dump
from w2sr_jax.twin.jax_train import JaxGRPO, JaxSFT, OldLogprobs
from w2sr_jax.twin.made import make
from w2sr_jax.twin.rollouts import write_rollouts
from w2sr_jax.twin.training import Curve, agreement
from w2sr_jax.twin.workloads import context, size, write_batches

pytestmark = pytest.mark.torch
STEPS = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> CompareConfig:
    root = tmp_path_factory.mktemp("random")
    random = RandomConfig(shape="configs/compare/tiny.json", traces=48, shortest=4, longest=20)
    model, problems, traces = make(random, root, "float32")
    data = DataConfig(problems=str(problems), traces=str(traces), template="plain", max_length=64, batch_size=8)
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup_ratio=0.5, weight_decay=0.1, clip_norm=0.5)
    train = TrainConfig(dtype="float32", remat="none", scan_layers=False)
    return CompareConfig(sft=SFTConfig(model=str(model), data=data, optimizer=optimizer, train=train), random=random)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other in turns are very slow on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def request(config, batches, **changes):
    train = dataclasses.replace(config.sft.train, **changes)
    return {
        "model": config.sft.model,
        "batches": str(batches),
        "data": dataclasses.asdict(config.sft.data),
        "optimizer": dataclasses.asdict(config.sft.optimizer),
        "train": dataclasses.asdict(train),
        "mesh": dataclasses.asdict(MeshConfig(data=1, fsdp=1, tensor=1)),
        "loss": dataclasses.asdict(GRPOLossConfig(kl=0.1, entropy=0.05)),
        "total": STEPS,
        "compile": False,
    }


def curve(side) -> Curve:
    found = Curve()
    for number in range(STEPS):
        loss, norm, _ = side.step(number)
        found.loss.append(loss)
        found.grad_norm.append(norm)
    return found


@pytest.fixture(scope="module")
def batches(config, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sft") / "batches"
    write_batches(config, directory, STEPS)
    return directory


@pytest.fixture(scope="module")
def rollouts(config, tmp_path_factory):
    directory = tmp_path_factory.mktemp("grpo") / "batches"
    write_rollouts(config.sft, directory, STEPS, seed=0)
    OldLogprobs(request(config, directory))
    return directory


@pytest.fixture(scope="module")
def ours(config, batches) -> Curve:
    return curve(JaxSFT(request(config, batches)))


@pytest.mark.parametrize("changes", [{}, {"grad_accum": 4}, {"remat": "full"}], ids=["plain", "microbatches", "remat"])
def test_sft_follows_our_curve(config, batches, ours, changes):
    from w2sr_jax.twin.torch_train import TorchSFT

    theirs = curve(TorchSFT(request(config, batches, **changes)))
    assert agreement(ours, theirs, 1e-5, 1e-4)["holds"]
    assert ours.loss[-1] < ours.loss[0]


def test_a_twin_whose_examples_see_each_other_is_found_out(config, batches, ours, monkeypatch):
    from w2sr_jax.twin import torch_model
    from w2sr_jax.twin.torch_train import TorchSFT

    assert dump.read_batch(batches, 0)["segment_ids_BT"].max() > 1
    monkeypatch.setattr(torch_model, "is_packed", lambda segments: False)
    assert not agreement(ours, curve(TorchSFT(request(config, batches))), 1e-4, 1e-3)["holds"]


def test_a_twin_that_decays_norms_is_found_out(config, batches, ours, monkeypatch):
    from w2sr_jax.twin.torch_train import TorchSFT

    side = TorchSFT(request(config, batches))
    side.optimizer.param_groups[1]["weight_decay"] = 0.1
    assert not agreement(ours, curve(side), 1e-5, 1e-4)["holds"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_grpo_updates_on_fixed_rollouts_follow_ours(config, rollouts, accumulate):
    from w2sr_jax.twin.torch_train import TorchGRPO

    mine = curve(JaxGRPO(request(config, rollouts, grad_accum=accumulate)))
    theirs = curve(TorchGRPO(request(config, rollouts, grad_accum=accumulate)))
    assert agreement(mine, theirs, 1e-5, 1e-4, least=1.0)["holds"]
    assert mine.loss[0] != mine.loss[1]


def test_a_target_s_logprob_needs_no_softmax_of_all(config):
    torch = pytest.importorskip("torch")
    from w2sr_jax.twin.torch_train import target_logprobs

    logits = 5 * torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 3], [0, 49, 7]])
    found = target_logprobs(logits, {"targets_BT": targets})
    torch.testing.assert_close(found, torch.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0])


def test_without_an_entropy_bonus_grpo_updates_follow_ours_too(config, rollouts):
    from w2sr_jax.twin.torch_train import TorchGRPO

    asked = request(config, rollouts) | {"loss": dataclasses.asdict(GRPOLossConfig(kl=0.1))}
    assert agreement(curve(JaxGRPO(asked)), curve(TorchGRPO(asked)), 1e-5, 1e-4, least=1.0)["holds"]


def test_a_dump_of_rollouts_that_was_killed_is_completed(config, tmp_path):
    write_rollouts(config.sft, tmp_path / "batches", 2, seed=0)
    whole = dump.read_batch(tmp_path / "batches", 1)
    shutil.rmtree(tmp_path / "batches" / "1")
    write_rollouts(config.sft, tmp_path / "batches", 2, seed=0)
    for name, value in dump.read_batch(tmp_path / "batches", 1).items():
        np.testing.assert_array_equal(value, whole[name])


def test_old_logprobs_are_written_once_and_are_those_of_the_first_weights(config, rollouts):
    before = [path.stat().st_ino for path in sorted(rollouts.glob("*/*.npy"))]
    OldLogprobs(request(config, rollouts))
    assert [path.stat().st_ino for path in sorted(rollouts.glob("*/*.npy"))] == before
    arrays = dump.read_batch(rollouts, 0)
    found = arrays["old_logprobs_BT"]
    assert (found[arrays["loss_mask_BT"] > 0] < 0).all()
    assert (found[arrays["loss_mask_BT"] == 0] == 0).all()
    # Nearly uniform over 256 words: the weights have not learnt anything yet.
    assert found[arrays["loss_mask_BT"] > 0].mean() == pytest.approx(-np.log(256), abs=0.3)


def test_a_side_that_has_started_has_compiled_no_pass_over_rollouts(config, rollouts):
    side = JaxGRPO(request(config, rollouts, loss_chunk=32))  # a program that no other test has
    assert side.logprobs._cache_size() == 0
    side.step(0)
    assert side.logprobs._cache_size() == 1


def test_in_bfloat16_both_references_have_its_size_but_for_norms_and_updates_agree_roughly(config, rollouts):
    from w2sr_jax.twin.torch_train import TorchGRPO

    mine, theirs = (side(request(config, rollouts, dtype="bfloat16")) for side in (JaxGRPO, TorchGRPO))
    for name, parameter in theirs.reference.named_parameters():
        assert str(parameter.dtype) == ("torch.float32" if "norm" in name else "torch.bfloat16"), name
    for path, x in jax.tree_util.tree_leaves_with_path(mine.reference):
        assert x.dtype == ("float32" if "norm" in jax.tree_util.keystr(path) else "bfloat16"), path
    assert {str(x.dtype) for x in jax.tree.leaves(mine.reference)} == {"float32", "bfloat16"}
    assert agreement(curve(mine), curve(theirs), 5e-2, 5e-2, least=1.0)["holds"]


def test_the_dumped_batches_are_the_pipeline_s_own(config, batches):
    from w2sr_jax.data.chat import load_tokenizer
    from w2sr_jax.data.pipeline import make_pipeline

    pipeline = make_pipeline(config.sft.data, load_tokenizer(config.sft.model), model_dir=config.sft.model)
    for number in range(STEPS):
        batch, dumped = next(pipeline), dump.read_batch(batches, number)
        for name, value in dumped.items():
            np.testing.assert_array_equal(getattr(batch, name), value)
    assert dump.read_batch(batches, STEPS)["tokens_BT"].tolist() == dump.read_batch(batches, 0)["tokens_BT"].tolist()
    found = size(batches, config.sft.model)
    assert 0.5 < found["filled"] <= 1.0
    assert context([np.array([[1, 1, 1, 2, 0, 0]])]) == (9 + 1) / 4
