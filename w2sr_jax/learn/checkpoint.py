"""Training state on disk: Orbax, asynchronous and atomic, with a JSON part for everything that is no array.

A step's directory appears under its final name only when it is complete, so that a kill leaves the steps before it.
Leaves are stored under plain names (params.layers.q), which depend on no class of ours or of optax. Each process writes
and reads its own slices, and a step can be restored onto any mesh and any number of processes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
from absl import logging

from w2sr_jax.core import processes
from w2sr_jax.core.config import CheckpointConfig
from w2sr_jax.core.errors import Preempted, W2SRError
from w2sr_jax.learn.state import leaf_name

NAMED = 3  # differing parameters that an error names before it only counts


@dataclasses.dataclass(frozen=True, slots=True)
class Best:
    """A rule for Orbax: the `count` steps with the highest scores stay; of equal ones the first, which GRPO exports.

    Orbax has a rule like it, but reads scores from a file of its own in each checkpoint: one that is damaged keeps it
    from opening any of them.
    """

    count: int
    scores: dict[int, float]  # of the steps that have one

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        scored = [info.step for info in checkpoints if info.step in self.scores]
        best = sorted(scored, key=lambda step: (-self.scores[step], step))[: self.count]
        return [info.step in best for info in checkpoints]


class Checkpointer:
    """Saves and restores (step, state, extra) under one directory.

    Args:
        directory: made when absent; one subdirectory a step. All processes see the same one.
        config: how many steps are kept: the last ones, and those with the highest scores.
    """

    def __init__(self, directory: str | os.PathLike[str], config: CheckpointConfig):
        import orbax.checkpoint as ocp  # seconds to import: only a stage that trains pays for it

        self._ocp, policies = ocp, ocp.checkpoint_managers
        self._directory = Path(directory).resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        best = Best(config.keep_best, scores={})
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(config.keep_last), best]),
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        self._scores = best.scores
        found = [(step, score) for step in self._manager.all_steps() if (score := self._score(step)) is not None]
        self._scores.update(processes.gather("scores", found)[0])

    def save(self, step: int, state: Any, extra: dict[str, Any], score: float | None = None) -> None:
        """Copies the state off the devices and writes it behind the caller's back; the state may be donated at once.

        Args:
            step: updates done; saving a step that is there already does nothing.
            state: any pytree of arrays.
            extra: JSON values: data-iterator state, seeds, best validation so far.
            score: for keep_best; the higher the better.
        """
        if step in self._manager.all_steps():
            return
        if score is None or not math.isfinite(score):
            score = None
            self._scores.pop(step, None)  # of one that was set aside
        else:
            self._scores[step] = score
        args = self._ocp.args
        leaves = _by_name(state)
        shapes = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in leaves.items()}
        self._manager.save(
            step,
            args=args.Composite(
                state=args.StandardSave(leaves),
                extra=args.JsonSave({"extra": extra, "shapes": shapes, "score": score}),
            ),
        )

    def restore_latest(self, abstract_state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest readable step, placed as `abstract_state` says; None where there is none.

        Steps that cannot be read are set aside (renamed to STEP.unreadable) with a warning once an older one is read.

        Args:
            abstract_state: the state's structure, of jax.ShapeDtypeStruct with shardings (`abstract_state`).

        Raises:
            W2SRError: a readable checkpoint of other parameters (names the first that differ); or steps are there and
                none is readable: that may be want of memory as well, so nothing is moved and training does not restart.
        """
        unreadable: list[int] = []
        reason = ""
        for step in processes.gather("checkpoints", sorted(self._manager.all_steps(), reverse=True))[0]:
            found, mine = self._try(step, abstract_state)
            # A step counts as readable if every process has read its part.
            failed = next((told for told in processes.gather(f"checkpoint {step}", mine) if told), None)
            if failed is None:
                for bad in unreadable:
                    logging.warning("falling back from checkpoint %d to %d", bad, step)
                    self._set_aside(bad)
                return found
            kind, reason = failed
            if kind == "refused":
                raise W2SRError(reason)
            logging.warning("checkpoint %s cannot be read (%s)", self._directory / str(step), reason)
            unreadable.append(step)
        if unreadable:
            raise W2SRError(
                f"{self._directory / str(unreadable[0])}: cannot be read, and there is no older checkpoint "
                f"({reason}); delete {self._directory} to train from the beginning"
            )
        return None

    def wait(self) -> None:
        """Returns when every save is complete on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error the other processes may be gone, and a save that is under way would wait for them.
        if kind is None or kind is Preempted or processes.count() == 1:
            self.close()

    def _score(self, step: int) -> float | None:
        """What a step was saved with; None also of one that older versions wrote, and of one that cannot be read."""
        try:
            found: dict[str, Any] = json.loads((self._directory / str(step) / "extra" / "metadata").read_text())
        except (OSError, ValueError):
            return None  # restoring says what is wrong with it
        return found.get("score")

    def _try(self, step: int, abstract_state: Any) -> tuple[Any, tuple[str, str] | None]:
        """(what was read, None), or (None, (kind of failure, reason))."""
        try:
            return self._read(step, abstract_state), None
        except W2SRError as error:
            return None, ("refused", str(error))
        except Exception as error:  # whatever Orbax or TensorStore raise on bytes that they cannot read
            return None, ("unreadable", f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0][:200]}")

    def _read(self, step: int, abstract_state: Any) -> tuple[int, Any, dict[str, Any]]:
        # By the handlers: the manager would wait for the other processes, of which one may have failed.
        args, wanted, place = self._ocp.args, _by_name(abstract_state), self._directory / str(step)
        found = self._ocp.JsonCheckpointHandler().restore(place / "extra", args=args.JsonRestore())
        if different := _differences(found["shapes"], wanted):
            named = "; ".join(different[:NAMED])
            more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
            raise W2SRError(f"{place}: checkpoint of another model or optimizer: {named}{more}")
        leaves = self._ocp.StandardCheckpointHandler().restore(place / "state", args=args.StandardRestore(wanted))
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), [leaves[name] for name in wanted])
        return step, state, found["extra"]

    def _set_aside(self, step: int) -> None:
        """Out of Orbax's sight, so that training can save this step again; kept for whoever wants to look into it."""
        if processes.is_writer():
            place = self._directory / str(step)
            aside = place.with_name(f"{step}.unreadable")
            while aside.exists():
                aside = aside.with_name(aside.name + "+")
            place.rename(aside)
        processes.barrier(f"checkpoint {step} aside")
        self._manager.reload()


def _by_name(tree: Any) -> dict[str, Any]:
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _differences(saved: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """One phrase for each leaf that is not the same in the checkpoint and in the state."""
    different = []
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in wanted:
            different.append(f"{name} is not in this model")
        elif name not in saved:
            different.append(f"{name} is not in the checkpoint")
        elif [list(wanted[name].shape), str(wanted[name].dtype)] != saved[name]:
            shape, dtype = saved[name]
            now = wanted[name]
            different.append(f"{name} is {dtype}{shape} there and {now.dtype}{list(now.shape)} here")
    return different
