"""The registry: names, pinned content, and what happens where a file is missing or another."""

import os
from pathlib import Path

import pytest

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import sha256_file
from w2sr_jax.data import benchmarks
from w2sr_jax.data.benchmarks import BENCHMARKS, Benchmark
from w2sr_jax.data.tasks import load_problems

FOLDER = Path(os.environ.get("W2SR_BENCHMARKS", Path(__file__).parents[3] / "shared" / "benchmarks"))
GSM8K = '{"question": "How many?", "answer": "2 * 3 = 6\\n#### 6", "idx": 0}\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of benchmarks whose gsm8k is a file of one problem, registered as such."""
    (tmp_path / "gsm8k.jsonl").write_text(GSM8K)
    monkeypatch.setenv("W2SR_BENCHMARKS", str(tmp_path))
    monkeypatch.setitem(BENCHMARKS, "gsm8k", Benchmark("gsm8k", 1, sha256_file(tmp_path / "gsm8k.jsonl")))
    return tmp_path


def test_the_six_benchmarks_are_pinned_by_content_and_count():
    assert list(BENCHMARKS) == ["aime24", "amc23", "math500", "minerva_math", "olympiadbench", "gsm8k"]
    assert [b.count for b in BENCHMARKS.values()] == [30, 40, 500, 272, 675, 1319]
    assert all(len(b.sha256) == 64 and name == b.name for name, b in BENCHMARKS.items())


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if (FOLDER / f"{name}.jsonl").is_file()])
def test_a_published_file_is_the_pinned_one(name, monkeypatch):
    monkeypatch.setenv("W2SR_BENCHMARKS", str(FOLDER))
    problems = load_problems(f"bench:{name}")
    assert len(problems) == BENCHMARKS[name].count
    assert {p.source for p in problems} == {name}
    assert benchmarks.identify(str(FOLDER / f"{name}.jsonl"))["name"] == name


def test_a_name_stands_for_the_file_in_either_layout(folder):
    assert [p.id for p in load_problems("bench:gsm8k")] == ["gsm8k/0"]
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k.jsonl").rename(folder / "gsm8k" / "test.jsonl")
    assert [p.id for p in load_problems("bench:gsm8k")] == ["gsm8k/0"]


def test_another_content_is_refused_by_name_and_allowed_by_path(folder):
    path = folder / "gsm8k.jsonl"
    path.write_text(GSM8K.replace("many", "few"))
    with pytest.raises(
        W2SRError, match=r"gsm8k.jsonl: sha256 .* is not that of the pinned gsm8k .*give the file's path"
    ):
        load_problems("bench:gsm8k")
    assert len(load_problems(str(path))) == 1
    assert benchmarks.identify(str(path)) is None


def test_a_file_is_recognised_by_its_content_wherever_it_lies(folder):
    (folder / "gsm8k.jsonl").rename(folder / "x.jsonl")
    found = benchmarks.identify(str(folder / "x.jsonl"))
    assert (found["name"], found["count"]) == ("gsm8k", 1)
    assert found["published"].startswith("https://github.com/hkust-nlp/simpleRL-reason/blob/2204dd1cfb83")
    assert benchmarks.identify("hf:a/b") is None


def test_names_in_reports():
    assert benchmarks.display_name("bench:math500") == "math500"
    assert benchmarks.display_name("data/my_problems.jsonl") == "my_problems"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "bench:math",
            "bench:math: no such benchmark, only aime24, amc23, math500, minerva_math, olympiadbench, gsm8k",
        ),
        ("bench:amc23", r"holds neither amc23.jsonl nor amc23/test.jsonl; take examples/.*/amc23/test.jsonl of https"),
    ],
)
def test_a_benchmark_that_is_not_there_says_where_to_get_it(source, message, folder):
    with pytest.raises(UsageError, match=message):
        load_problems(source)


def test_without_a_folder_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("W2SR_BENCHMARKS", raising=False)
    with pytest.raises(UsageError, match="W2SR_BENCHMARKS is unset"):
        load_problems("bench:gsm8k")
