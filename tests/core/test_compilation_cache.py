"""Which runs keep their compiled programs."""

import jax
import pytest

from w2sr_jax.core.compilation_cache import keep_compiled_programs


@pytest.fixture(autouse=True)
def settings():
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_enable_compilation_cache", before[1])


def test_accelerators_keep_compiled_programs_below_the_user_s_cache(tmp_path):
    keep_compiled_programs("tpu", {"XDG_CACHE_HOME": str(tmp_path)})
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "w2sr_jax" / "xla")


def test_a_cpu_keeps_none():
    keep_compiled_programs("cpu", {})
    assert jax.config.jax_compilation_cache_dir is None


def test_what_the_user_has_set_stays():
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    keep_compiled_programs("gpu", {})
    assert jax.config.jax_compilation_cache_dir == "elsewhere"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    keep_compiled_programs("gpu", {})
    assert jax.config.jax_compilation_cache_dir is None
