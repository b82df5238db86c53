import json
import sys

import pytest

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.records import RecordError
from w2sr_jax.data import hub
from w2sr_jax.data.tasks import load_problems

NAMES = [
    "README.md",
    "main/train-00001-of-00002.parquet",
    "main/train-00000-of-00002.parquet",
    "main/test-00000-of-00001.parquet",
    "level3to5/train.parquet",
    "train.jsonl",
    "extra/test/part.json",
]


@pytest.fixture
def dataset(monkeypatch, tmp_path):
    """A hub that serves files of this folder."""

    class Api:
        def list_repo_files(self, name, repo_type):
            assert (name, repo_type) == ("owner/data", "dataset")
            return [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file, repo_type: str(tmp_path / file))
    return tmp_path


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (
            "main/train",
            {"": ["main/train-00000-of-00002.parquet", "main/train-00001-of-00002.parquet"]},
        ),
        ("level3to5", {"": ["level3to5/train.parquet"]}),
        ("level3to5/train", {"": ["level3to5/train.parquet"]}),
        ("train", {"": ["train.jsonl"]}),
        ("test", {"extra": ["extra/test/part.json"], "main": ["main/test-00000-of-00001.parquet"]}),
        ("valid", {}),
    ],
)
def test_a_split_is_a_folder_or_the_beginning_of_a_file_name(split, expected):
    assert hub.split_files(NAMES, split) == expected


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["data/train.jsonl", "data/train-00000-of-00001.parquet"], {"data": ["data/train.jsonl"]}),
        (["train.parquet", "train.json", "train.jsonl"], {"": ["train.jsonl"]}),
        (["train/dataset_infos.json", "train/data.parquet"], {"": ["train/data.parquet"]}),
        (["a/train.jsonl", "b/train.parquet"], {"a": ["a/train.jsonl"], "b": ["b/train.parquet"]}),
    ],
)
def test_of_a_split_in_several_formats_one_is_read(names, taken):
    assert hub.split_files(names, "train") == taken


def test_what_is_left_unread_is_named(caplog):
    hub.split_files(["train.jsonl", "train.parquet"], "train")
    assert "train.parquet: not read beside train.jsonl" in caplog.text


def test_a_dataset_is_read_with_columns_that_no_format_knows_and_ids_that_name_it(dataset):
    rows = [{"question": "q", "answer": f"#### {i}", "extra": 1} for i in range(2)]
    (dataset / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (dataset / "train.json").write_text(json.dumps(rows[:1]))
    problems = load_problems("hf:owner/data:test")
    assert [(p.id, p.answer) for p in problems] == [("owner/data:test/0", "0"), ("owner/data:test/1", "1")]
    assert [p.id for p in load_problems("hf:owner/data")] == ["owner/data/0"]


def test_a_missing_split_is_a_usage_error(dataset):
    with pytest.raises(UsageError, match="hf:owner/data:dev: no JSON, JSONL or Parquet file of split 'dev'"):
        load_problems("hf:owner/data:dev")


def test_a_split_of_several_configurations_is_refused_with_their_names(dataset):
    row = json.dumps({"question": "q", "answer": "#### 1"})
    for folder in ("main", "socratic"):
        (dataset / folder).mkdir()
        (dataset / folder / "test-00000-of-00001.jsonl").write_text(row)
    with pytest.raises(UsageError, match="name one of hf:owner/data:main/test, hf:owner/data:socratic/test"):
        load_problems("hf:owner/data:test")
    assert len(load_problems("hf:owner/data:socratic/test")) == 1


def test_parquet_without_pyarrow_says_what_to_install(dataset, monkeypatch):
    (dataset / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(W2SRError, match=r"train.parquet: reading Parquet needs pyarrow: run `make setup EXTRAS=hub`"):
        load_problems("hf:owner/data")


def test_a_broken_json_file_is_one_line(dataset):
    (dataset / "train.json").write_text("[1,")
    with pytest.raises(RecordError, match=r"train.json: not JSON"):
        load_problems("hf:owner/data")


def test_offline_a_dataset_is_one_clear_line():
    with pytest.raises(W2SRError, match=r"hf:owner/data: cannot be fetched from the hub .* give its path") as error:
        load_problems("hf:owner/data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["hf:", "hf:gsm8k", "hf:a/b/c"])
def test_a_misspelt_dataset_is_a_usage_error(source):
    with pytest.raises(UsageError, match=r"expected hf:OWNER/NAME\[:SPLIT\]"):
        load_problems(source)
