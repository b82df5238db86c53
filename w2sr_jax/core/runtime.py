"""From a command line to a stage's `main(config, workdir)`: processes, the workdir and one-line errors."""

from __future__ import annotations

import contextlib
import fcntl
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
from w2sr_jax.core.command_line import help_text, one_line, parse
from w2sr_jax.core.errors import Preempted, UsageError, W2SRError
from w2sr_jax.core.files import read_json, write_json
from w2sr_jax.core.stage_config import ExperimentConfig

Main = Callable[[Any, str], Any]

EXIT_FAILED, EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED = 1, 2, 75, 130  # 75 is EX_TEMPFAIL: start it again

# Stages that compute nothing on the mesh: of several processes, the first one does them and the others wait.
FIRST_PROCESS = ("filter", "report", "transform")
ONE_PROCESS = ("compare", "convert", "micro")  # refused where several run
UNCLAIMED = ("doctor",)  # looks at a workdir that a run may hold, and leaves its config alone


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
        print(help_text(stage, (sys.modules[main.__module__].__doc__ or "").strip(), config_type))
        return 0
    set_up_logging()
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
        code, reason = EXIT_USAGE, one_line(error)
    except W2SRError as error:
        code, reason = EXIT_FAILED, one_line(error)
    except OSError as error:  # a full disk or a missing permission, wherever it strikes
        code, reason = EXIT_FAILED, one_line(error)
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
        code, reason = EXIT_FAILED, f"{where}: {one_line(error)[:300]} (W2SR_DEBUG=1 shows the place)"
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


def set_up_logging() -> None:
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
