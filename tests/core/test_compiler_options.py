import jax

from w2sr_jax.core.compiler_options import TABLE, compiler_options
from w2sr_jax.core.config import MeshConfig
from w2sr_jax.core.mesh import make_mesh
from w2sr_jax.core.topology import CHIPS


def test_a_cpu_mesh_and_a_single_device_get_no_options():
    assert compiler_options(None) == {}
    assert compiler_options(make_mesh(MeshConfig(), jax.devices())) == {}


def test_every_option_is_for_known_chips_and_has_its_reason():
    assert all(set(option.chips) <= set(CHIPS) and option.reason and option.value for option in TABLE)
