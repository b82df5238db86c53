"""`w2sr convert`: what it writes is its source, checked; what it cannot use it names in one line."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from w2sr_jax.core.cost import read_ledger
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.stage_config import ConvertConfig
from w2sr_jax.model import hf
from w2sr_jax.model.config import ModelConfig
from w2sr_jax.model.decoder import Decoder
from w2sr_jax.stages import convert

CONFIG = ModelConfig(
    vocab_size=48, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4
)


@pytest.fixture
def source(tmp_path):
    hf.save(Decoder(CONFIG, rngs=nnx.Rngs(0)), tmp_path / "model", dtype=jnp.float32)
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    return tmp_path / "model"


@pytest.mark.parametrize(("dtype", "max_shard_gb", "files"), [("float32", 5.0, 1), ("bfloat16", 3e-6, None)])
def test_the_export_holds_the_source_in_the_dtype_and_shards_asked_for(source, tmp_path, dtype, max_shard_gb, files):
    config = ConvertConfig(model=str(source), dtype=dtype, max_shard_gb=max_shard_gb)
    result = convert.main(config, str(tmp_path / "work"))
    export = tmp_path / "work" / "export"
    assert result == {"export": str(export), "tensors": 27}
    written = list(export.glob("*.safetensors"))
    assert len(written) == files if files else len(written) > 2
    expected = hf.load(source).embed[...].astype(dtype)
    np.testing.assert_array_equal(hf.load(export, dtype=dtype).embed[...], expected)
    assert (export / "tokenizer.json").exists()
    assert [line.stage for line in read_ledger(tmp_path / "work")] == ["convert"]


def test_a_difference_between_export_and_source_is_named(source, tmp_path):
    convert.main(ConvertConfig(model=str(source), dtype="float32"), str(tmp_path / "work"))
    path = tmp_path / "work" / "export" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + np.float32(1e-3)
    save_file(tensors, path)
    with pytest.raises(W2SRError, match=r"1 tensors differ from .*: model\.norm\.weight"):
        convert.verify(source, path.parent, "float32")


def test_a_missing_model_a_bad_dtype_and_its_own_export_are_refused_in_one_line(source, tmp_path):
    with pytest.raises(W2SRError, match="no such directory"):
        convert.main(ConvertConfig(model=str(tmp_path / "nothing")), str(tmp_path / "work"))
    with pytest.raises(UsageError, match=r"config\.dtype"):
        convert.main(ConvertConfig(model=str(source), dtype="int8"), str(tmp_path / "work"))
    convert.main(ConvertConfig(model=str(source)), str(tmp_path / "work"))
    with pytest.raises(W2SRError, match="another workdir"):
        convert.main(ConvertConfig(model=str(tmp_path / "work")), str(tmp_path / "work"))
