"""What machine a figure belongs to, its accelerators told from files alone."""

from w2sr_jax.core.rows import accelerators, machine, nvidia_gpus


def test_gpus_are_named_and_the_cpu_or_no_visible_device_hides_them(tmp_path):
    dev, proc = tmp_path / "dev", tmp_path / "proc"
    dev.mkdir()
    for index, name in enumerate(("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")):
        (dev / name).touch()
        if index < 2:
            (proc / str(index)).mkdir(parents=True)
            (proc / str(index) / "information").write_text("Model: \t NVIDIA H200\nIRQ: 1\n")
    assert nvidia_gpus({}, dev, proc) == ["NVIDIA H200"] * 2
    assert nvidia_gpus({"CUDA_VISIBLE_DEVICES": "1"}, dev, proc) == ["NVIDIA H200"]
    assert nvidia_gpus({"CUDA_VISIBLE_DEVICES": ""}, dev, proc) == []
    assert nvidia_gpus({"JAX_PLATFORMS": "cpu"}, dev, proc) == []
    assert nvidia_gpus({}, dev, tmp_path / "none") == ["NVIDIA GPU"] * 2


def test_an_accelerator_is_part_of_the_machine(monkeypatch):
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v6e-8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert machine().endswith(", 1 x TPU v6e-8")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert "TPU" not in machine()
    assert accelerators({"JAX_PLATFORMS": "cpu,cuda", "TPU_ACCELERATOR_TYPE": "v6e-8"}) == []
