"""One trajectory, whatever the mesh and however many processes; and a checkpoint of one mesh serves every other."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tasks
from safetensors.numpy import load_file
from spawn import spawn

from w2sr_jax.core.config import CheckpointConfig
from w2sr_jax.core.files import read_json
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.stages import sft

ONE = (1, 1, 1)
MESHES = [(8, 1, 1), (1, 8, 1), (1, 2, 4), (2, 2, 2)]
# (processes, mesh): FSDP over two; all three axes' kinds over four, so that two processes share each row of a batch.
PROCESSES = [(2, (1, 2, 1)), (4, (1, 2, 2))]
WORKER = Path(__file__).with_name("worker.py")

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture(scope="module")
def single(inputs, tmp_path_factory):
    """Both trajectories on one device."""
    root = tmp_path_factory.mktemp("single")
    sft.main(tasks.sft_config(inputs, ONE), str(root / "sft"))
    tasks.learn(inputs, ONE, root / "grpo")
    return root


@pytest.fixture(scope="module")
def checkpoints(inputs, tmp_path_factory):
    """Of five SFT steps on (1, 8, 1)."""
    root = tmp_path_factory.mktemp("saved")
    sft.main(tasks.sft_config(inputs, (1, 8, 1), steps=5), str(root))
    return root / "checkpoints"


def assert_same_trajectory(root, single):
    losses = [[row["loss"] for row in read_metrics(place / "sft")] for place in (root, single)]
    assert len(losses[1]) == tasks.STEPS
    np.testing.assert_allclose(*losses, rtol=1e-5)
    losses = [read_json(place / "grpo/losses.json") for place in (root, single)]
    # A policy loss is a difference of terms of size 1 and may be next to nothing.
    np.testing.assert_allclose(*losses, rtol=1e-5, atol=1e-5)
    for stage in ("sft", "grpo"):
        found, expected = (load_file(place / stage / "export/model.safetensors") for place in (root, single))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_a_mesh_of_eight_devices_follows_the_single_device(sizes, inputs, single, tmp_path):
    assert len(jax.devices()) == 8
    sft.main(tasks.sft_config(inputs, sizes), str(tmp_path / "sft"))
    tasks.learn(inputs, sizes, tmp_path / "grpo")
    assert_same_trajectory(tmp_path, single)


@pytest.mark.parametrize(("count", "sizes"), PROCESSES, ids=["2 processes", "4 processes"])
def test_real_processes_follow_the_single_device_and_restore_what_a_mesh_saved(
    count, sizes, inputs, single, checkpoints, tmp_path
):
    flags = [f"--config.inputs={inputs}", f"--config.checkpoints={checkpoints}", f"--config.mesh={sizes}"]
    argv = [str(WORKER), "--config.what=everything", f"--workdir={tmp_path}", *flags]
    for done in spawn(count, argv, tmp_path / "logs").wait(300):
        assert done.code == 0, done.output[-2000:]
    assert_same_trajectory(tmp_path, single)

    leaves, tokens = tasks.restore(inputs, ONE, checkpoints)
    size = (inputs / "model/model.safetensors").stat().st_size
    parts = [dict(np.load(tmp_path / f"restored{number}.npz")) for number in range(count)]
    for part in parts:
        part_tokens, bytes_read = part.pop("next_tokens"), part.pop("bytes_read")
        assert bytes_read < 1.1 * size / count, "its slices of the weights (norms are whole), and no more"
        assert part.keys() == leaves.keys()
        for name, value in leaves.items():
            np.testing.assert_array_equal(part[name], value, err_msg=name)
        assert len(part_tokens) == 4, "half of the batch: its share, and no more"
        assert any(np.array_equal(part_tokens, half) for half in (tokens[:4], tokens[4:]))
    assert len(list((tmp_path / "sft").glob("ledger.jsonl"))) == 1


def test_a_checkpoint_of_one_mesh_is_restored_onto_others_with_the_same_next_batch(inputs, checkpoints):
    saved, tokens = tasks.restore(inputs, (1, 8, 1), checkpoints)
    assert len(saved) > 20
    for sizes in ((2, 2, 2), ONE):
        found, next_tokens = tasks.restore(inputs, sizes, checkpoints)
        assert found.keys() == saved.keys()
        for name, value in saved.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        np.testing.assert_array_equal(next_tokens, tokens)


def test_as_many_checkpoints_are_kept_as_asked_for(inputs, tmp_path):
    kept = CheckpointConfig(every_steps=1, keep_last=2, keep_best=1)
    sft.main(tasks.sft_config(inputs, ONE, steps=6, checkpoint=kept), str(tmp_path))
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    best = 1 + int(np.argmin(losses))
    assert {int(path.name) for path in (tmp_path / "checkpoints").iterdir()} == {best, 5, 6}
