"""Checkpoints: equal to the bit, atomic, and never silently another model's."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from jax.sharding import PartitionSpec

from w2sr_jax.core.config import CheckpointConfig, MeshConfig, OptimizerConfig
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.learn.checkpoint import Checkpointer
from w2sr_jax.learn.optim import make_optimizer
from w2sr_jax.learn.state import abstract_state, init_state
from w2sr_jax.learn.step import make_sft_step

# When one array cannot be read, Orbax closes its event loop while TensorStore still reports on the other arrays.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OPTIMIZER = make_optimizer(OptimizerConfig())
KEEP = CheckpointConfig()


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def state(model):
    """A state whose leaves are all different."""
    state = init_state(model()[1], OPTIMIZER)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(state))))
    return jax.tree.map(
        lambda x: jax.random.normal(next(keys), x.shape) if jnp.issubdtype(x.dtype, jnp.floating) else x + 7, state
    )


@pytest.fixture
def abstract(model):
    return abstract_state(model()[1], OPTIMIZER)


@pytest.fixture
def warnings_logged(monkeypatch):
    """What absl's log said, without relying on a handler."""
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def plus(state, number):
    return jax.tree.map(lambda x: x + number, state)


def save(directory, state, steps, keep_last=9):
    with Checkpointer(directory, CheckpointConfig(keep_last=keep_last)) as checkpointer:
        for step in steps:
            checkpointer.save(step, plus(state, step), {"step": step})


def keep_best(directory, scores, first=1):
    """Saves a step of each score, as one run that keeps the last and the best; returns the steps that are left."""
    with Checkpointer(directory, CheckpointConfig(keep_last=1, keep_best=1)) as checkpointer:
        for step, score in enumerate(scores, first):
            checkpointer.save(step, {"a": jnp.ones(3)}, {}, score)
    return sorted(p.name for p in directory.iterdir())


def damage(step_directory):
    """Cuts every file of the arrays in half, as a disk that was full or a lost write would."""
    files = [p for p in step_directory.rglob("*") if p.is_file() and p.parent.name == "d"]
    assert files
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


def test_a_restored_state_equals_the_saved_one_to_the_bit(tmp_path, state, abstract):
    extra = {"data": {"epoch": 1, "order": [3, 1, 2]}, "rng": [0, 2**32 - 1], "best": 0.1 + 0.2}
    with Checkpointer(tmp_path / "checkpoints", KEEP) as checkpointer:
        assert checkpointer.restore_latest(abstract) is None
        checkpointer.save(3, state, extra)
    with Checkpointer(tmp_path / "checkpoints", KEEP) as checkpointer:
        step, restored, back = checkpointer.restore_latest(abstract)
    assert (step, back) == (3, extra)
    assert_equal(restored, state)


def test_a_state_may_be_donated_right_after_save(tmp_path, model, packed_batch, train):
    graphdef, params = model()
    step, state = make_sft_step(graphdef, OptimizerConfig(), train()), init_state(params, OPTIMIZER)
    abstract, copies = abstract_state(params, OPTIMIZER), {}
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=9)) as checkpointer:
        for count in range(1, 5):
            state, _ = step(state, packed_batch(count), 0.1)
            copies[count] = jax.tree.map(np.array, state)
            checkpointer.save(count, state, {})
        checkpointer.wait()
        for count in (4, 3, 2, 1):
            found, restored, _ = checkpointer.restore_latest(abstract)
            assert found == count
            assert_equal(restored, copies[count])
            shutil.rmtree(tmp_path / str(count))
            checkpointer._manager.reload()


def test_training_resumed_from_a_checkpoint_equals_unbroken_training(tmp_path, model, packed_batch, train, fresh):
    graphdef, params = model()
    step, abstract = make_sft_step(graphdef, OptimizerConfig(), train()), abstract_state(params, OPTIMIZER)
    state = init_state(fresh(params), OPTIMIZER)
    for count in range(4):
        if count == 2:
            with Checkpointer(tmp_path, KEEP) as checkpointer:
                checkpointer.save(2, state, {})
        state, _ = step(state, packed_batch(count), 1e-2)
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        count, resumed, _ = checkpointer.restore_latest(abstract)
    for later in range(count, 4):
        resumed, _ = step(resumed, packed_batch(later), 1e-2)
    assert_equal(resumed, state)


def test_only_the_last_ones_are_kept(tmp_path, state):
    save(tmp_path, state, range(1, 6), keep_last=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4", "5"]


def test_the_best_one_is_kept_over_restarts_until_there_is_a_better_one(tmp_path):
    assert keep_best(tmp_path, [0.3, 0.9, 0.5]) == ["2", "3"]
    assert keep_best(tmp_path, [0.4, None], first=4) == ["2", "5"]
    assert keep_best(tmp_path, [float("nan")], first=6) == ["2", "6"]
    assert keep_best(tmp_path, [0.95, 0.1], first=7) == ["7", "8"]


def test_of_equally_good_ones_the_first_is_kept(tmp_path):
    assert keep_best(tmp_path, [0.3, 0.9, 0.9, 0.5]) == ["2", "4"]


def test_steps_that_were_saved_without_a_score_are_never_the_best(tmp_path):
    assert keep_best(tmp_path, [None, float("nan"), 0.1]) == ["3"]
    stored = tmp_path / "3/extra/metadata"  # as versions before wrote it
    said = json.loads(stored.read_text())
    del said["score"]
    stored.write_text(json.dumps(said))
    assert keep_best(tmp_path, [0.05, 0.01], first=4) == ["4", "5"]


@pytest.mark.parametrize("text", ["", '{"extra"'])
def test_a_best_one_that_cannot_be_read_does_not_keep_the_others_from_being_restored(tmp_path, text, warnings_logged):
    keep_best(tmp_path, [0.3, 0.9])
    keep_best(tmp_path, [0.4], first=3)
    (tmp_path / "3/extra/metadata").write_text(text)
    abstract = {"a": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=jnp.ones(3).sharding)}
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=1, keep_best=1)) as checkpointer:
        assert checkpointer.restore_latest(abstract)[0] == 2
        checkpointer.save(3, {"a": jnp.ones(3)}, {}, 0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3", "3.unreadable"]
    assert warnings_logged


def test_saving_a_step_twice_does_nothing(tmp_path, state, abstract):
    save(tmp_path, state, [1, 1])
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(1, state, {"step": "other"})
        assert checkpointer.restore_latest(abstract)[2] == {"step": 1}


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(tmp_path, state, abstract, warnings_logged):
    save(tmp_path, state, [1, 2, 3])
    damage(tmp_path / "3")
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=9)) as checkpointer:
        step, restored, extra = checkpointer.restore_latest(abstract)
        assert (step, extra) == (2, {"step": 2})
        assert_equal(restored, plus(state, 2))
        assert any("/3 cannot be read" in warning for warning in warnings_logged)  # Orbax may say that a save was slow
        assert warnings_logged[-1] == "falling back from checkpoint 3 to 2"
        assert (tmp_path / "3.unreadable").exists()
        checkpointer.save(3, state, {"step": "again"})
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=9)) as checkpointer:
        step, restored, extra = checkpointer.restore_latest(abstract)
    assert (step, extra) == (3, {"step": "again"})
    assert_equal(restored, state)


@pytest.mark.parametrize("missing", ["state/manifest.ocdbt", "extra/metadata", "state"])
def test_a_checkpoint_with_a_part_missing_falls_back_too(tmp_path, state, abstract, warnings_logged, missing):
    save(tmp_path, state, [1, 2])
    part = tmp_path / "2" / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        assert checkpointer.restore_latest(abstract)[0] == 1
    assert warnings_logged


def test_what_a_killed_save_leaves_behind_is_not_taken_for_a_checkpoint(tmp_path, state, abstract):
    save(tmp_path, state, [1, 2])
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        assert checkpointer.restore_latest(abstract)[0] == 1
        checkpointer.save(2, state, {})
    assert (tmp_path / "2").exists()


def test_when_none_can_be_read_the_error_says_what_to_do_and_moves_nothing(tmp_path, state, abstract, warnings_logged):
    save(tmp_path, state, [1])
    damage(tmp_path / "1")
    with (
        Checkpointer(tmp_path, KEEP) as checkpointer,
        pytest.raises(W2SRError, match=r"no older checkpoint .*; delete") as e,
    ):
        checkpointer.restore_latest(abstract)
    assert "\n" not in str(e.value)
    assert (tmp_path / "1").exists()


def test_a_checkpoint_of_another_model_is_refused_by_the_names_that_differ(tmp_path, state, model):
    save(tmp_path, state, [1])
    other = abstract_state(model(hidden_size=24, tie_embeddings=False)[1], OPTIMIZER)
    with Checkpointer(tmp_path, KEEP) as checkpointer, pytest.raises(W2SRError) as error:
        checkpointer.restore_latest(other)
    message = str(error.value)
    assert "\n" not in message
    assert "checkpoint of another model or optimizer" in message
    assert "embed is float32[32, 16] there and float32[32, 24] here" in message
    assert re.search(r"and \d+ more$", message)
    assert (tmp_path / "1").exists()


def test_a_checkpoint_holds_json_and_arrays_only(tmp_path, state):
    save(tmp_path, state, [1])
    stored = json.loads((tmp_path / "1/extra/metadata").read_text())
    assert stored["extra"] == {"step": 1}
    assert stored["shapes"]["params.layers.q"] == [[2, 16, 32], "float32"]
    assert stored["shapes"]["step"] == [[], "int32"]
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pkl", ".pickle")]


def test_a_checkpoint_can_be_restored_onto_another_mesh(tmp_path, state, model):
    save(tmp_path, state, [0])
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    placed = abstract_state(model()[1], OPTIMIZER, mesh)
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        restored = checkpointer.restore_latest(placed)[1]
    assert_equal(restored, state)
    assert restored.params["layers"]["q"].sharding.spec == PartitionSpec(None, "fsdp", "tensor")
