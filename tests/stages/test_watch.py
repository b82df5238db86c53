"""What a person can watch: the metrics of every step, profiles, and that watching costs no waiting."""

import dataclasses
import gzip
import json
import stat

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event

from w2sr_jax.core import step_meter
from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.metrics import read_metrics
from w2sr_jax.core.runtime import run
from w2sr_jax.learn import pace, policy
from w2sr_jax.stages import grpo, sft

EVERY_STEP = {
    *("step_seconds", "tokens_per_second", "tokens_per_second_per_chip", "data_wait_seconds", "checkpoint_seconds"),
    *("compile_seconds", "compiles", "productive_seconds", "goodput", "padding", "host_rss_bytes"),
}


def scalars(directory):
    """{name: {step: value}} of the event files, whose records are: length u64, crc u32, bytes, crc u32."""
    found = {}
    for path in directory.glob("events.*"):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += size + 16
    return found


def train(files, chunk=32, **changes):
    """An SFT config; a loss_chunk of its own compiles a step of its own."""
    config = files.sft(**changes)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, loss_chunk=chunk))


def test_every_sft_step_tells_its_speed_and_only_the_first_compiles(files, tmp_path, monkeypatch):
    steps, make = [], sft.make_sft_step
    monkeypatch.setattr(sft, "make_sft_step", lambda *args: steps.append(make(*args)) or steps[-1])
    sft.main(train(files, chunk=31), str(tmp_path))
    rows = read_metrics(tmp_path)
    for row in rows:
        assert row.keys() >= EVERY_STEP
        assert not {"mfu", "hbm_bytes_in_use", "profile_seconds", "validation_seconds"} & row.keys()  # a CPU's
        assert 0 <= row["productive_seconds"] <= row["step_seconds"]
        assert 0 <= row["goodput"] <= 1
        assert row["host_rss_bytes"] > 1e7
    assert rows[0]["compiles"] >= 1
    assert rows[0]["compile_seconds"] > 0
    assert [row["compiles"] for row in rows[1:]] == [0] * 7
    assert steps[0]._cache_size() == 1  # one compile per run
    assert [bool(row["checkpoint_seconds"]) for row in rows] == [step in (3, 6) for step in range(8)]


def test_the_same_scalars_are_in_tensorboard(files, tmp_path):
    sft.main(train(files, peak_tflops=1e-6), str(tmp_path))
    found = scalars(tmp_path / "tensorboard")
    assert found.keys() >= EVERY_STEP | {"mfu", "mfu_peak_tflops", "loss"}
    assert found["step_seconds"] == pytest.approx({r["step"]: r["step_seconds"] for r in read_metrics(tmp_path)})


def test_mfu_is_of_the_stated_peak_and_of_tokens_without_padding(files, tmp_path):
    sft.main(train(files, steps=1, peak_tflops=1e-6), str(tmp_path))
    (row,) = read_metrics(tmp_path)
    flops_per_token = row["mfu"] * 1e6 / row["tokens_per_second"]
    shape = sft.flops_shape(sft.hf.load_config(files.model))
    longest = 3 * 4 * shape["num_layers"] * shape["num_heads"] * shape["head_dim"] * 32 / 2
    assert 6 * shape["num_params"] < flops_per_token < 6 * shape["num_params"] + longest
    assert 0 < row["padding"] < 1


def test_eight_cpu_devices_are_one_chip(files, tmp_path):
    config = train(files, steps=2, mesh=MeshConfig(data=2, fsdp=4, tensor=1))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=8))
    sft.main(config, str(tmp_path))
    assert all(row["tokens_per_second"] == row["tokens_per_second_per_chip"] for row in read_metrics(tmp_path))


@pytest.mark.parametrize("accelerator", [True, False])
def test_the_host_fetches_a_step_after_the_next_is_sent_and_on_a_cpu_before(accelerator, files, tmp_path, monkeypatch):
    if accelerator:
        monkeypatch.setattr(sft, "one_at_a_time", lambda: False)
        monkeypatch.setattr(pace, "one_at_a_time", lambda: False)
    sent, order, make, get = [], [], sft.make_sft_step, jax.device_get

    def made(*args):
        step = make(*args)

        def counted(*inner):
            with jax.transfer_guard("disallow"):  # whatever a step needs lies on its devices already
                state, values = step(*inner)
            sent.append(values)
            order.append(f"sent {len(sent) - 1}")
            return state, values

        return counted

    def fetch(values):
        order.append(f"fetched {next(i for i, one in enumerate(sent) if one is values)}")
        return get(values)

    monkeypatch.setattr(sft, "make_sft_step", made)
    monkeypatch.setattr(sft.jax, "device_get", fetch)
    config = train(files, steps=5)
    config = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, every_steps=0))
    sft.main(config, str(tmp_path))
    if accelerator:
        later = [text for i in range(4) for text in (f"sent {i + 1}", f"fetched {i}")]
        assert order == ["sent 0", *later, "fetched 4"]
    else:
        assert order == [text for i in range(5) for text in (f"sent {i}", f"fetched {i}")]


def test_a_profile_of_some_sft_steps(files, tmp_path, caplog):
    sft.main(train(files, profile="3:2"), str(tmp_path))
    (trace,) = (tmp_path / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {int(e["args"]["step_num"]) for e in events if e.get("name") == "train" and "step_num" in e.get("args", {})}
    assert steps == {3, 4}
    rows = read_metrics(tmp_path)
    assert [bool(row.get("profile_seconds")) for row in rows] == [step in (3, 5) for step in range(8)]


def test_a_profile_does_not_change_the_run_nor_its_workdir(files, tmp_path, kill_in, killed):
    sft.main(train(files), str(tmp_path / "plain"))
    undo = kill_in(sft, "make_sft_step", 5)
    with pytest.raises(killed):
        run(sft.main, train(files), tmp_path / "w", "sft")
    undo()
    run(sft.main, train(files, profile="4:1", peak_tflops=0.5), tmp_path / "w", "sft")
    curves = [[row["loss"] for row in read_metrics(tmp_path / name)] for name in ("plain", "w")]
    assert curves[0] == curves[1]
    assert list((tmp_path / "w/profile").rglob("*.xplane.pb"))
    assert "profile" not in json.loads((tmp_path / "w/config.json").read_text())


def test_a_bad_profile_is_one_line(files, tmp_path):
    with pytest.raises(UsageError, match=r"^config\.profile: begins at step 8, but the last step is 7$"):
        sft.main(train(files, profile="8:1"), str(tmp_path))
    with pytest.raises(UsageError, match=r"^config\.profile: expected START:COUNT"):
        sft.main(train(files, profile="8"), str(tmp_path))


def test_a_resumed_run_counts_its_steps_once(files, tmp_path, kill_in, killed, monkeypatch):
    undo = kill_in(sft, "make_sft_step", 5)
    with pytest.raises(killed):
        sft.main(train(files), str(tmp_path))
    undo()
    meters = []
    monkeypatch.setattr(sft, "StepMeter", lambda *args: meters.append(step_meter.StepMeter(*args)) or meters[-1])
    sft.main(train(files), str(tmp_path))
    rows, clock = read_metrics(tmp_path), json.loads((tmp_path / "clock.json").read_text())
    assert [row["step"] for row in rows] == list(range(8))
    assert meters[0].summary().startswith("8 steps on 1 chip")
    productive = sum(row["productive_seconds"] for row in rows)
    earliest, latest = (row["time"] - clock["began"] for row in rows[-2:])
    assert productive / (latest + 0.001) <= rows[-1]["goodput"] <= productive / (earliest - 0.001)


def test_every_grpo_step_tells_its_speed(files, guesser, tmp_path):
    config = files.grpo(str(guesser), validation=files.problems, validate_every=2, peak_tflops=1e-3, profile="1:1")
    grpo.main(config, str(tmp_path))
    rows = read_metrics(tmp_path)
    for row in rows:
        assert row.keys() >= EVERY_STEP | {"mfu", "rollout_seconds", "update_seconds"}
        assert row["step_seconds"] >= row["rollout_seconds"] + row["update_seconds"]
        assert row["data_wait_seconds"] > 0  # grading
    assert [("validation_seconds" in row) for row in rows] == [False, True, True]
    assert rows[2]["checkpoint_seconds"] > 0 == rows[1]["checkpoint_seconds"]
    assert rows[2]["compiles"] == 0
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_nothing_goes_from_the_host_to_the_device_within_a_grpo_update(files, guesser, tmp_path, monkeypatch):
    make, guarded = policy.make_grpo_step, []

    def made(*args, **options):
        step = make(*args, **options)

        def guard(*inner):
            guarded.append(inner)
            with jax.transfer_guard("disallow"):
                return step(*inner)

        return guard

    monkeypatch.setattr(policy, "make_grpo_step", made)
    grpo.main(files.grpo(str(guesser), steps=2), str(tmp_path))
    assert guarded


def test_exported_files_have_the_permissions_of_any_new_file(files, tmp_path):
    sft.main(train(files, steps=1), str(tmp_path))
    (tmp_path / "any").touch()
    wanted = stat.S_IMODE((tmp_path / "any").stat().st_mode)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "export").iterdir()}
    assert modes == dict.fromkeys(modes, wanted)
    assert "model.safetensors" in modes
