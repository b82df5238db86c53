"""One of several processes of a test: the tasks of tasks.py, and ways in which a process can fail."""

import dataclasses
import sys
import time
from pathlib import Path

import jax
import numpy as np

from w2sr_jax.core import processes, runtime
from w2sr_jax.core.config import MeshConfig, opt
from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.mesh import make_mesh, place_rows


@dataclasses.dataclass(slots=True, kw_only=True)
class Config:
    what: str = opt(help="a function of this file")
    inputs: str = opt("", "where make_inputs wrote")
    checkpoints: str = opt("", "of an SFT run on another mesh")
    mesh: tuple[int, int, int] = opt((1, -1, 1), "data, fsdp, tensor")


def everything(config: Config, workdir: Path) -> None:
    """The SFT trajectory, GRPO's updates and a restore of another mesh's checkpoint, in one start."""
    import tasks

    from w2sr_jax.model import hf
    from w2sr_jax.model.tensors import TensorFiles
    from w2sr_jax.stages import sft

    inputs, read, total = Path(config.inputs), TensorFiles.read, 0

    def counted(self, name, index):
        nonlocal total
        value = read(self, name, index)
        total += value.nbytes
        return value

    TensorFiles.read = counted
    hf.load(inputs / "model", make_mesh(tasks.mesh_config(config.mesh)))
    TensorFiles.read = read
    sft.main(tasks.sft_config(inputs, config.mesh), str(workdir / "sft"))
    tasks.learn(inputs, config.mesh, workdir / "grpo")
    leaves, tokens = tasks.restore(inputs, config.mesh, Path(config.checkpoints))
    np.savez(workdir / f"restored{processes.index()}.npz", next_tokens=tokens, bytes_read=total, **leaves)


def fails_alone(config: Config, workdir: Path) -> None:
    """Process 1 has an error while the others already wait for it in a collective."""
    if processes.index() == 1:
        raise W2SRError("a disk that only this host has is full")
    mesh = make_mesh(MeshConfig())
    print(jax.jit(lambda x: x.sum())(place_rows(np.ones(mesh.size), mesh, mesh.size)))


def stays_away(config: Config, workdir: Path) -> None:
    """Process 1 does not come to a barrier."""
    if processes.index() == 1:
        processes.gather("another", None, 60)
    processes.barrier("the meeting", 5)


def sees_another_disk(config: Config, workdir: Path) -> None:
    """Each process looks at a workdir of its own."""
    from w2sr_jax.health.places import check_shared

    own = workdir / str(processes.index())
    own.mkdir()
    check = check_shared(own)
    raise W2SRError(f"{check.status}: {check.found}")


def first_works_long(config: Config, workdir: Path) -> None:
    """Process 0 works for minutes, and the others wait for it."""
    processes.barrier("the beginning")
    if processes.is_writer():
        time.sleep(300)
    else:
        (workdir / "waiting").touch()
    processes.barrier("the end of the work", processes.FOREVER_S)


def main(config: Config, workdir: str) -> None:
    tasks = (everything, fails_alone, stays_away, sees_another_disk, first_works_long)
    {task.__name__: task for task in tasks}[config.what](config, Path(workdir))


if __name__ == "__main__":
    argv = sys.argv[1:]
    if "--another_jaxlib" in argv:
        argv.remove("--another_jaxlib")
        own = processes.versions()
        processes.versions = lambda: own | {"jaxlib": "0.0.1"}
    sys.exit(runtime.launch("test", main, Config, argv))
