"""A command line read into a config: the flags, config files, overridden keys, and what --help prints.

The only module that defines absl flags, since a flag defined twice raises.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from absl import flags, logging

from w2sr_jax.core import config as configs
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.rendezvous import Coordinates


@dataclasses.dataclass(frozen=True, slots=True)
class CommandLine:
    """What a command line says, beside the stage."""

    config: Any
    workdir: Path
    distributed: bool
    coordinates: Coordinates | None  # None: to be detected
    init_timeout_s: float


def parse(argv: list[str], config_type: type) -> CommandLine:
    """Reads a command line.

    Raises:
        UsageError: one line that names the flag, the key, the file or the type.
    """
    from ml_collections import config_flags

    files = [a.split("=", 1)[1] for a in argv if a.startswith(("--config=", "-config="))]
    if len(files) > 1:
        raise UsageError(f"--config: one file is taken, got {' and '.join(files)}")
    picked = files[0] if files else None
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
        raise UsageError(one_line(error)) from None
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
            f"--config: {picked}: {type(error).__name__}: {one_line(error)} (W2SR_DEBUG=1 shows where)"
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


def help_text(stage: str, doc: str, config_type: type) -> str:
    """What `w2sr STAGE --help` prints; `doc` says what the stage does."""
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


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
