"""Matmuls with weights that lie packed in memory, on one CPU.

Before it multiplies, a CPU's matmul copies the weights into blocks of columns, which are read along memory then. For
the few rows of a decoding step that is a quarter of its time and more. XLA's CPU client has oneDNN in it, whose matmul
can be told that it was done already: so the weights are packed once, and stay so.

Which blocks oneDNN reads is its own business: it depends on processor, threads, rows and shape. So it is tried out. On
few cores it is blocks of 64 columns for any number of rows but one; where it is not, weights stay as they are.

Shape letters: R rows, D inputs, F outputs, C = COLUMNS, b = F / C blocks.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COLUMNS = 64  # of a block
WORTH = 1 << 22  # elements of a model's matrices: smaller ones stay in the caches, where copies cost little
LEAST_ROWS = 2  # one row's product is another kernel's, for which weights lie otherwise
PROBES = (LEAST_ROWS, 8, 64, 512)  # rows for which a matrix must be read in these blocks, or it is not packed
LARGEST = 1 << 26  # elements: trying out a shape takes a matrix of it
TARGET = "__onednn$matmul"  # XLA's name, not JAX's: it may go with a new version, and does no harm then
PACKED = {"onednn_matmul_config": {"optimization_config": {"weights_prepacked": True}}}


@functools.partial(jax.tree_util.register_dataclass, data_fields=["blocks_bDC"], meta_fields=[])
@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """A float32 matrix [D, F]."""

    blocks_bDC: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(D, F)."""
        b, D, C = self.blocks_bDC.shape
        return D, b * C

    @property
    def dtype(self) -> Any:
        """float32."""
        return self.blocks_bDC.dtype

    def unpacked(self) -> jax.Array:
        """[D, F]."""
        return self.blocks_bDC.swapaxes(0, 1).reshape(self.shape)


def packs(elements: int) -> bool:
    """Whether a model's matrices, of so many elements together, are to be packed.

    XLA cannot write programs with such matmuls to JAX's persistent cache: whoever turned that on gets the others.
    """
    kept = jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir
    return elements >= WORTH and not kept


def pack(weight_DF: jax.Array) -> Packed | jax.Array:
    """The matrix for `matmul`; itself if it has no float32 blocks, is too large to be tried out, or read otherwise."""
    D, F = weight_DF.shape
    if weight_DF.dtype != jnp.float32 or F % COLUMNS or weight_DF.size > LARGEST:
        return weight_DF
    return Packed(_blocks(weight_DF)) if all(_reads(rows, D, F) for rows in PROBES) else weight_DF


def matmul(x_RD: jax.Array, weight: Packed | jax.Array, dtype: Any = None) -> jax.Array:
    """x @ weight, [R, F]; `dtype` as `preferred_element_type` of jnp.matmul."""
    if not isinstance(weight, Packed):
        return jnp.matmul(x_RD, weight, preferred_element_type=dtype)
    rows = max(len(x_RD), LEAST_ROWS)
    if not _reads(rows, *weight.shape):  # although it reads the PROBES so
        return x_RD @ weight.unpacked()
    return _call(jnp.pad(x_RD, ((0, rows - len(x_RD)), (0, 0))), weight)[: len(x_RD)]


def _call(x_RD: jax.Array, weight: Packed) -> jax.Array:
    out = jax.ShapeDtypeStruct((len(x_RD), weight.shape[1]), jnp.float32)
    call = jax.ffi.ffi_call(TARGET, out, custom_call_api_version=2, legacy_backend_config=json.dumps(PACKED))
    return call(x_RD, weight.blocks_bDC.reshape(weight.shape))


@functools.cache
def _reads(rows: int, D: int, F: int) -> bool:
    """Whether oneDNN takes `Packed` weights as they are, for so many rows: by a product that is known."""
    rng = np.random.default_rng(0)
    x_RD, weight_DF = (rng.standard_normal(shape, np.float32) for shape in ((rows, D), (D, F)))
    with jax.ensure_compile_time_eval():
        try:
            found_RF = jax.jit(_call)(x_RD, Packed(_blocks(weight_DF)))
        except jax.errors.JaxRuntimeError:  # there is no such call
            return False
    return bool(np.max(np.abs(np.asarray(found_RF) - x_RD @ weight_DF)) < 1e-3 * D**0.5)


def _blocks(weight_DF: Any) -> Any:
    return weight_DF.reshape(len(weight_DF), -1, COLUMNS).swapaxes(0, 1)
