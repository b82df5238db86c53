"""`w2sr sft`: it learns, it resumes as if nothing had happened, and what it writes is a model."""

import dataclasses
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tasks import flags_of

from w2sr_jax.core import cost
from w2sr_jax.core.config import CheckpointConfig, MeshConfig, PriceConfig
from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.records import Trace
from w2sr_jax.core.runtime import launch
from w2sr_jax.core.stage_config import SFTConfig
from w2sr_jax.data.chat import load_tokenizer
from w2sr_jax.data.pipeline import make_pipeline
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape
from w2sr_jax.stages import sft


@pytest.fixture(scope="module")
def unbroken(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("unbroken")
    return root, sft.main(files.sft(), str(root))


def losses(root):
    return [(row["step"], row["loss"], row["learning_rate"]) for row in read_metrics(root)]


def assert_same_export(one, other):
    a, b = (load_file(root / "export" / "model.safetensors") for root in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_the_loss_falls_and_every_step_is_in_the_metrics(unbroken):
    root, result = unbroken
    rows = read_metrics(root)
    assert [row["step"] for row in rows] == list(range(8))
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert result == {"loss": rows[-1]["loss"], "steps": 8, "tokens": result["tokens"]}
    assert all(row["step_seconds"] >= 0 and row["grad_norm"] > 0 for row in rows)


def test_the_export_loads_and_is_the_trained_model(files, unbroken):
    root, _ = unbroken
    trained, start = hf.load(root), hf.load(files.model)
    assert trained.config == start.config
    assert not np.array_equal(trained.embed[...], start.embed[...])
    assert (root / "export" / "tokenizer.json").read_bytes() == (
        hf.resolve(files.model) / "tokenizer.json"
    ).read_bytes()


def test_the_ledger_tells_what_it_cost(files, tmp_path):
    config = files.sft(steps=2, price=PriceConfig(usd_per_device_hour=3.6, source="a test"))
    tokens = sft.main(config, str(tmp_path))["tokens"]
    (line,) = read_ledger(tmp_path)
    assert (line.stage, line.name, line.tokens_in, line.tokens_out) == ("sft", tmp_path.name, tokens, 0)
    assert line.flops > 6 * tokens * 1000
    assert line.flops == pytest.approx(sum(flops_of(row, config) for row in batches(config)))
    assert line.seconds >= line.compile_seconds > 0
    assert line.usd == pytest.approx(line.device_seconds * 1e-3)
    assert not line.resumed


@pytest.mark.parametrize("after", [2, 3, 5, 7])
def test_a_killed_run_resumes_as_if_it_were_unbroken(files, unbroken, tmp_path, kill_in, killed, after):
    undo = kill_in(sft, "make_sft_step", after)
    with pytest.raises(killed):
        sft.main(files.sft(), str(tmp_path))
    undo()
    assert not (tmp_path / "export").exists()
    result = sft.main(files.sft(), str(tmp_path))
    assert result == unbroken[1]
    assert losses(tmp_path) == losses(unbroken[0])
    assert_same_export(tmp_path, unbroken[0])
    (line,), (whole,) = read_ledger(tmp_path), read_ledger(unbroken[0])
    assert (line.attempts, line.resumed) == (2, True)
    assert (line.tokens_in, line.flops) == (whole.tokens_in, pytest.approx(whole.flops))


def test_a_run_killed_before_its_export_only_exports(files, unbroken, tmp_path, monkeypatch, killed):
    def never(*args, **options):
        raise killed

    with monkeypatch.context() as patch:
        patch.setattr(sft.hf, "save", never)
        with pytest.raises(killed):
            sft.main(files.sft(), str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(sft, "make_sft_step", lambda *args: never)
        assert sft.main(files.sft(), str(tmp_path)) == unbroken[1]
    assert losses(tmp_path) == losses(unbroken[0])
    assert_same_export(tmp_path, unbroken[0])


def test_sigterm_saves_after_the_step_and_the_same_command_resumes(files, unbroken, tmp_path, monkeypatch, capsys):
    make = sft.make_sft_step

    def made(*options):
        step, calls = make(*options), 0

        def counted(*inner):
            nonlocal calls
            calls += 1
            if calls == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(*inner)

        return counted

    argv = [f"--workdir={tmp_path / 'w'}", *flags_of(files.sft())]
    with monkeypatch.context() as patch:
        patch.setattr(sft, "make_sft_step", made)
        assert launch("sft", sft.main, SFTConfig, argv) == 75
    assert "w2sr sft: stopped by SIGTERM; the same command resumes\n" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "w/checkpoints").iterdir()] == ["5"]
    assert launch("sft", sft.main, SFTConfig, argv) == 0
    assert losses(tmp_path / "w") == losses(unbroken[0])
    assert_same_export(tmp_path / "w", unbroken[0])


def test_steps_follow_from_epochs(files, tmp_path):
    config = files.sft(steps=0, epochs=3.0, checkpoint=CheckpointConfig(every_steps=0))
    result = sft.main(data(config, packing=False, batch_size=12), str(tmp_path))
    assert result["steps"] == len(read_metrics(tmp_path)) == 4  # 3 x 16 rows; each epoch for itself would take 6


def test_a_mesh_of_eight_devices_follows_the_same_curve(files, tmp_path):
    eight = data(files.sft(mesh=MeshConfig(data=2, fsdp=4, tensor=1)), batch_size=8)
    sft.main(eight, str(tmp_path / "eight"))
    sft.main(data(files.sft(), batch_size=8), str(tmp_path / "one"))
    assert len(jax.devices()) == 8
    for (step, loss, _), (_, expected, _) in zip(losses(tmp_path / "eight"), losses(tmp_path / "one"), strict=True):
        assert loss == pytest.approx(expected, rel=1e-4), step


def test_a_batch_that_does_not_split_over_the_mesh_is_refused(files, tmp_path):
    with pytest.raises(UsageError, match="4 rows does not split over data x fsdp = 8 device groups"):
        sft.main(files.sft(mesh=MeshConfig(data=2, fsdp=4, tensor=1)), str(tmp_path))


def test_unusable_traces_are_one_line(files, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    config = files.sft()
    with pytest.raises(W2SRError, match=r"empty\.jsonl: holds no traces$"):
        sft.main(data(config, traces=str(tmp_path / "empty.jsonl")), str(tmp_path / "a"))
    with pytest.raises(W2SRError, match=r"none of 16 traces fits into max_length=8 tokens"):
        sft.main(data(config, max_length=8), str(tmp_path / "b"))
    stranger = [dataclasses.replace(t, problem_id="other") for t in read_jsonl(files.traces, Trace)[:1]]
    write_jsonl(tmp_path / "strange.jsonl", stranger)
    with pytest.raises(W2SRError, match=r"strange\.jsonl: problem_id: 'other' is not in .*problems\.jsonl"):
        sft.main(data(config, traces=str(tmp_path / "strange.jsonl")), str(tmp_path / "c"))


def test_nothing_to_train_is_refused(files, tmp_path):
    with pytest.raises(UsageError, match=r"config\.steps, config\.epochs: nothing to train"):
        sft.main(files.sft(steps=0, epochs=0.0), str(tmp_path))


def test_other_traces_do_not_continue_a_run(files, tmp_path, kill_in, killed):
    undo = kill_in(sft, "make_sft_step", 4)
    with pytest.raises(killed):
        sft.main(files.sft(), str(tmp_path / "w"))
    undo()
    write_jsonl(tmp_path / "fewer.jsonl", read_jsonl(files.traces, Trace)[:8])
    with pytest.raises(W2SRError, match="start in a new workdir"):
        sft.main(data(files.sft(), traces=str(tmp_path / "fewer.jsonl")), str(tmp_path / "w"))


def batches(config):
    """The batches of a run, once more."""
    pipeline = make_pipeline(config.data, load_tokenizer(config.model), model_dir=config.model)
    return [next(pipeline) for _ in range(config.steps)]


def flops_of(batch, config):
    """6N a token, and attention over the examples as long as they are."""
    shape = flops_shape(hf.load_config(config.model))
    segments = [row[row > 0] for row in batch.segment_ids_BT]
    lengths = [count for row in segments for count in np.bincount(row)[1:]]
    return sum(cost.train_flops(tokens=int(n), context=int(n), **shape) for n in lengths)


def data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def test_a_run_that_lacks_only_its_export_knows_its_last_loss_without_the_metrics(files, tmp_path):
    config = files.sft(steps=2)
    result = sft.main(config, str(tmp_path))
    (tmp_path / "metrics.jsonl").unlink()  # another process writes it, perhaps later than this one comes here
    shutil.rmtree(tmp_path / "export")
    assert sft.main(config, str(tmp_path)) == result
    assert (tmp_path / "export/model.safetensors").exists()
