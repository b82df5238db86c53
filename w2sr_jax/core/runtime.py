"""From a command line to a stage's `main(config, workdir)`: flags, processes, the workdir and one-line errors.

The only module that defines absl flags, since a flag defined twice raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.util
import logging as std_logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags, logging

from w2sr_jax.core import config as configs
from w2sr_jax.core import preemption, processes
from w2sr_jax.core.errors import Preempted, UsageError, W2SRError
from w2sr_jax.core.files import read_json, write_json
from w2sr_jax.core.rendezvous import Coordinates
from w2sr_jax.core.stage_config import ExperimentConfig

Main = Callable[[Any, str], Any]

EXIT_FAILED, EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED = 1, 2, 75, 130  # 75 is EX_TEMPFAIL: start it again

# Stages that compute nothing on the mesh: of several processes, the first one does them and the others wait.
FIRST_PROCESS = ("filter", "report")
ONE_PROCESS = ("compare", "convert", "micro", "run")  # refused where several run
UNCLAIMED = ("doctor",)  # looks at a workdir that a run may hold, and leaves its config alone


@dataclasses.dataclass(frozen=True, slots=True)
class CommandLine:
    """What a command line says, beside the stage."""

    config: Any
    workdir: Path
    distributed: bool
    coordinates: Coordinates | None  # None: to be detected
    init_timeout_s: float


def launch(stage: str, main: Main, config_type: type, argv: list[str] | None = None) -> int:
    """Runs one stage from a command line and returns its exit code.

    0, 1 (failed), 2 (usage), 75 (SIGTERM: the same command resumes) or 130 (Ctrl-C). Where several processes run, an
    error ends all of them with the same code, and does not return.

    Args:
        stage: name shown in messages.
        main: the stage's function.
        config_type: dataclass that --config must return; without --config its defaults are the config.
        argv: arguments after the stage's name (default: those of this process).
    """
    argv = sys.argv[1:] if argv is None else argv
    if any(a in ("--help", "-h", "-help", "--helpfull") for a in argv):
        print(help_text(stage, main, config_type))
        return 0
    _set_up_logging()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads absl's global flags, of which we define none
    try:
        line = parse(argv, config_type)
        if line.distributed:
            processes.start(line.coordinates, line.init_timeout_s)
            if not processes.is_writer():
                logging.set_verbosity(min(logging.get_verbosity(), logging.WARNING))  # progress is told once
        with preemption.on_sigterm():
            result = run(main, line.config, line.workdir, stage)
        processes.leave()
        return result if isinstance(result, int) else 0
    except UsageError as error:
        code, reason = EXIT_USAGE, _one_line(error)
    except W2SRError as error:
        code, reason = EXIT_FAILED, _one_line(error)
    except OSError as error:  # a full disk or a missing permission, wherever it strikes
        code, reason = EXIT_FAILED, _one_line(error)
    except Preempted:
        code, reason = EXIT_PREEMPTED, "stopped by SIGTERM; the same command resumes"
    except KeyboardInterrupt:
        code, reason = EXIT_INTERRUPTED, "interrupted; the same command resumes"
    except Exception as error:
        if processes.count() == 1:
            raise
        where = (
            "JAX failed, perhaps since another process did" if "Jax" in type(error).__name__ else type(error).__name__
        )
        code, reason = EXIT_FAILED, f"{where}: {_one_line(error)[:300]} (W2SR_DEBUG=1 shows the place)"
        if os.environ.get("W2SR_DEBUG"):
            traceback.print_exc()
    return processes.end(code, f"w2sr {stage}: {reason}")


def run(main: Main, config: Any, workdir: str | Path, stage: str = "") -> Any:
    """Validates, claims the workdir (see `claim`) and calls `main(config, workdir)`.

    Args:
        stage: decides what several processes do with it, and whether the workdir is claimed; see FIRST_PROCESS,
            ONE_PROCESS and UNCLAIMED.
    """
    configs.validate(config)
    if stage in ONE_PROCESS and processes.count() > 1:
        raise UsageError("runs in one process; start it without --distributed")
    if stage in UNCLAIMED:
        processes.agree("config", configs.flatten(configs.to_dict(config)) | {"--workdir": str(workdir)})
        return main(config, str(workdir))
    with claim(workdir, config):
        result = None
        if processes.is_writer() or stage not in FIRST_PROCESS:
            result = main(config, str(workdir))
        processes.barrier(f"the end of {Path(workdir).name}", processes.FOREVER_S)
        return result


@contextlib.contextmanager
def claim(workdir: str | Path, config: Any) -> Iterator[None]:
    """Holds a workdir for one run and one config.

    The resolved config is written to workdir/config.json; a workdir of another config is refused with the keys that
    differ, and one in use by another run is refused too. Of several processes the first one does this, and the
    others make sure that they see the same config and the same workdir.
    """
    workdir = Path(workdir)
    processes.agree("config", configs.flatten(configs.to_dict(config)) | {"--workdir": str(workdir)})
    with _hold(workdir, config) if processes.is_writer() else contextlib.nullcontext():
        processes.barrier(f"the claim of {workdir.name}")
        if not (workdir / "config.json").exists():
            here = processes.who(processes.index())
            raise W2SRError(f"{workdir}: is not shared by all hosts: {here} does not see its config.json")
        yield


@contextlib.contextmanager
def _hold(workdir: Path, config: Any) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise W2SRError(f"{workdir}: cannot be used as --workdir: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise W2SRError(f"{workdir}: in use by another process") from None
        _tidy(workdir)
        path, new = workdir / "config.json", configs.to_dict(config)
        # An experiment keys each of its nodes by their own configs, so it may change; a stage may not.
        if path.exists() and not isinstance(config, ExperimentConfig):
            old, flat = configs.flatten(read_json(path)), configs.flatten(new)
            if differ := sorted(k for k in old.keys() | flat.keys() if old.get(k) != flat.get(k)):
                shown = "; ".join(f"{k}: {old.get(k)!r} -> {flat.get(k)!r}" for k in differ[:5])
                raise UsageError(f"{workdir} holds another config ({shown}); use another --workdir")
        else:
            write_json(path, new)
        yield


def _tidy(workdir: Path) -> None:
    """Ends what a killed process had begun: parts go, and a directory that was being replaced is whole again."""
    for part in workdir.glob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    for old in workdir.glob(".*.old"):
        replaced = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
        shutil.rmtree(old) if replaced.exists() else old.rename(replaced)


def parse(argv: list[str], config_type: type) -> CommandLine:
    """Reads a command line.

    Raises:
        UsageError: one line that names the flag, the key, the file or the type.
    """
    from ml_collections import config_flags

    picked = next((a.split("=", 1)[1] for a in argv if a.startswith(("--config=", "-config="))), None)
    argv = [a for a in argv if not a.startswith(("--config=", "-config="))]
    config = config_type() if picked is None else load_config_file(picked)
    if not isinstance(config, config_type):
        raise UsageError(
            f"--config: {picked} returns a {type(config).__name__}, this command takes a {config_type.__name__}"
        )
    _check_keys(argv, config)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "where everything is written", flag_values=values)
    flags.DEFINE_bool("distributed", False, "one of many processes", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "how many there are", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "which one this is", lower_bound=0, flag_values=values)
    flags.DEFINE_float("init_timeout_s", 300.0, "wait for the others", lower_bound=1.0, flag_values=values)
    flags.DEFINE_integer("verbosity", 0, "-1 warnings only, 0 info, 1 debug", flag_values=values)
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=["w2sr", *argv])
        rest = values(["w2sr", *argv])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(_one_line(error)) from None
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; flags look like --config.KEY=VALUE")
    if values.workdir is None:
        raise UsageError("--workdir=DIR is required")
    if "://" in values.workdir:
        raise UsageError(
            f"--workdir={values.workdir}: not a path; mount the bucket (gcsfuse, as launch/host.sh does) and give "
            "a directory of the mount"
        )
    logging.set_verbosity(values.verbosity)
    given = {"coordinator": values.coordinator, "num_processes": values.num_processes, "process_id": values.process_id}
    if absent := [name for name, value in given.items() if value is None]:
        if len(absent) < len(given):
            raise UsageError(f"--{absent[0]}: missing; --coordinator, --num_processes and --process_id go together")
        coordinates = None
    else:
        coordinates = Coordinates(values.coordinator, values.num_processes, values.process_id)
    return CommandLine(
        config=values.config,
        workdir=Path(values.workdir).expanduser().resolve(),
        distributed=values.distributed or coordinates is not None,
        coordinates=coordinates,
        init_timeout_s=values.init_timeout_s,
    )


def load_config_file(picked: str) -> Any:
    """What `get_config(variant)` of "FILE.py[:VARIANT]" returns.

    Raises:
        UsageError: no such file, no get_config in it, or whatever the file raised, in one line.
    """
    path, _, variant = picked.partition(":")
    if not Path(path).is_file():
        raise UsageError(f"--config: {path or '(empty)'}: no such file")
    found = importlib.util.spec_from_file_location("w2sr_config", path)
    if found is None or found.loader is None:
        raise UsageError(f"--config: {path}: is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules["w2sr_config"] = module  # dataclasses look their module up while they are made
    try:
        found.loader.exec_module(module)
        return module.get_config(variant) if variant else module.get_config()
    except Exception as error:
        if os.environ.get("W2SR_DEBUG"):
            raise
        raise UsageError(
            f"--config: {picked}: {type(error).__name__}: {_one_line(error)} (W2SR_DEBUG=1 shows where)"
        ) from None


def _check_keys(argv: list[str], config: Any) -> None:
    """Names the first --config.KEY that the config does not have, or that no command line can hold."""
    for name in (a.lstrip("-").split("=", 1)[0] for a in argv if a.startswith(("--config.", "-config."))):
        part = config
        for key in name.split(".")[1:]:
            if not dataclasses.is_dataclass(part) or key not in {field.name for field in dataclasses.fields(part)}:
                raise UsageError(f"--{name}: no such key; --help lists them")
            part = getattr(part, key)
        if isinstance(part, dict):
            raise UsageError(f"--{name}: a table, which only a config file can set (--config=FILE.py)")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def help_text(stage: str, main: Main, config_type: type) -> str:
    """What `w2sr STAGE --help` prints."""
    doc = (sys.modules[main.__module__].__doc__ or "").strip()
    return "\n".join([
        f"usage: w2sr {stage} [--config=FILE.py[:VARIANT]] --workdir=DIR [--config.KEY=VALUE ...]",
        "",
        doc,
        "",
        "flags:",
        "  --workdir=DIR".ljust(50) + " where everything is written; the same command resumes there",
        "  --config=FILE.py[:VARIANT]".ljust(50) + " a config file; without it the defaults below",
        "  --verbosity=0".ljust(50) + " -1 warnings only, 0 info, 1 debug",
        "  --distributed".ljust(50) + " one of many processes, as Cloud TPU, GKE, Slurm or MPI announce them",
        "  --coordinator=HOST:PORT".ljust(50) + " one of many: where process 0 listens (with the next two)",
        "  --num_processes=N".ljust(50) + " how many processes there are",
        "  --process_id=I".ljust(50) + " which one this is, from 0",
        "  --init_timeout_s=300".ljust(50) + " how long to wait for the other processes",
        *configs.describe(config_type()),
    ])  # fmt: skip


def _set_up_logging() -> None:
    """Plain lines with the time on stderr, ours only."""
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.set_verbosity(logging.INFO)
    # Orbax and Grain log every detail through absl too; theirs begins to matter at a warning.
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno >= std_logging.WARNING or "w2sr_jax" in record.pathname
    )


def main_exit(stage: str, main: Main, config_type: type) -> None:
    """`launch` for `python -m w2sr_jax.stages.STAGE`."""
    sys.exit(launch(stage, main, config_type))
