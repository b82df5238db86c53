"""Compiled programs kept between runs, on accelerators, where compiling takes minutes and a restart would do it again.

On a CPU a program takes seconds, and one that was compiled on another kind of processor may not run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import jax


def keep_compiled_programs(platform: str, environment: Mapping[str, str] = os.environ) -> None:
    """Turns JAX's persistent cache on, unless JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE say otherwise.

    Args:
        platform: what programs are compiled for, as JAX names it.
        environment: XDG_CACHE_HOME, by default ~/.cache, is where `w2sr_jax/xla` lies.
    """
    if platform == "cpu" or jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return
    home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "w2sr_jax" / "xla"))
