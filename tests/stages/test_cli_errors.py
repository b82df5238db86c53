"""Whatever is wrong with a command line or an input ends in one line that names it, and the right exit code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from spawn import one_device

from tests.stages.command_lines import MICRO, ONE_DEVICE, fields
from w2sr_jax import cli
from w2sr_jax.core.runtime import EXIT_FAILED, EXIT_USAGE


@pytest.mark.parametrize("stage", cli.STAGES)
def test_help_lists_every_key_of_a_stage(stage, capsys):
    assert cli.main([stage, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: w2sr {stage} " in out
    assert all(f"--config.{name}" in out for name in fields(stage))
    assert "--workdir" in out


@pytest.mark.parametrize("stage", cli.STAGES)
def test_an_unknown_key_is_named(stage, fails, inputs):
    assert fails(stage, [*inputs.argv(stage), "--config.nonsense=1"]) == (
        EXIT_USAGE,
        f"w2sr {stage}: --config.nonsense: no such key; --help lists them",
    )


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("compare", "runs", "x"),
        ("convert", "max_shard_gb", "big"),
        ("distill", "sampling.max_tokens", "many"),
        ("filter", "seed", "1.5"),
        ("sft", "optimizer.learning_rate", "fast"),
        ("grpo", "steps", "ten"),
        ("evaluate", "decode.batch_size", "x"),
        ("report", "bootstrap", "x"),
        ("run", "sft_steps", "x"),
        ("run", "teacher.min_gain", "x"),
        ("micro", "splits.train", "x"),
        ("plan", "batch_size", "x"),
    ],
)
def test_a_wrong_type_is_named(stage, key, value, fails, inputs):
    code, line = fails(stage, [*inputs.argv(stage), f"--config.{key}={value}"])
    assert code == EXIT_USAGE
    assert f"config.{key}" in line
    assert value in line


def test_a_table_is_left_to_the_config_file(fails, inputs):
    assert fails("report", [*inputs.argv("report"), "--config.arms={}"]) == (
        EXIT_USAGE,
        "w2sr report: --config.arms: a table, which only a config file can set (--config=FILE.py)",
    )


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("convert", "dtype", "int8"),
        ("distill", "template", "nonsense"),
        ("distill", "sampling.top_p", "0"),
        ("distill", "sampling.n", "2"),
        ("filter", "gates", "('nonsense',)"),
        ("sft", "data.template", "nonsense"),
        ("sft", "data.overlong", "nonsense"),
        ("sft", "steps", "-1"),
        ("grpo", "loss.ratio", "nonsense"),
        ("grpo", "sampling.n", "1"),
        ("evaluate", "template", "nonsense"),
        ("evaluate", "engine", "nonsense"),
        ("evaluate", "mesh.data", "3"),
        ("report", "base", "nonsense"),
        ("micro", "what", "nonsense"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(stage, key, value, fails, inputs):
    code, line = fails(stage, [*inputs.argv(stage), f"--config.{key}={value}"])
    assert code == EXIT_USAGE
    assert key.split(".")[-1] in line


REQUIRED = [
    (stage, key)
    for stage, keys in {
        "convert": ["model"],
        "distill": ["model", "problems"],
        "filter": ["problems", "traces"],
        "sft": ["model", "data.problems", "data.traces"],
        "grpo": ["model", "problems"],
        "evaluate": ["model", "problems"],
        "micro": ["traces"],
    }.items()
    for key in keys
]


@pytest.mark.parametrize(("stage", "key"), REQUIRED)
def test_a_required_path_that_is_not_given_is_named(stage, key, fails, inputs):
    code, line = fails(stage, inputs.argv(stage, **{key: ""}))
    assert code == EXIT_USAGE
    assert f"config.{key}" in line


@pytest.mark.parametrize(("stage", "key"), REQUIRED)
def test_a_missing_file_is_named(stage, key, fails, inputs, tmp_path):
    missing = str(tmp_path / "gone.jsonl")
    code, line = fails(stage, inputs.argv(stage, **{key: missing}))
    assert code == EXIT_FAILED
    assert missing in line


def test_a_report_without_arms_is_refused(fails, inputs):
    code, line = fails("report", [f"--config={inputs.report}:empty"])
    assert code == EXIT_USAGE
    assert "config.arms" in line


def test_a_missing_result_is_named(fails, inputs):
    code, line = fails("report", inputs.argv("report"))
    assert code == EXIT_FAILED
    assert "nowhere/" in line


def test_missing_problems_of_a_base_model_are_named(fails, tmp_path):
    argv = ["--config.what=base", f"--config.problems={tmp_path / 'gone'}", *ONE_DEVICE]
    code, line = fails("micro", argv)
    assert code == EXIT_FAILED
    assert "gone/train.jsonl" in line


@pytest.mark.parametrize("picked", ["gone.py", "gone.py:tiny", ""])
def test_a_missing_config_file_is_named(picked, fails):
    code, line = fails("run", [f"--config={picked}"])
    assert code == EXIT_USAGE
    assert "no such file" in line


def test_a_variant_that_does_not_exist_is_named(fails):
    code, line = fails("run", [f"--config={MICRO}:nonsense"])
    assert code == EXIT_USAGE
    assert "nonsense" in line


def test_an_experiment_without_a_config_is_explained(fails):
    code, line = fails("run", [])
    assert code == EXIT_USAGE
    assert "--config" in line


@pytest.mark.parametrize(
    ("stage", "key", "original"),
    [
        ("distill", "problems", "problems"),
        ("filter", "problems", "problems"),
        ("filter", "traces", "traces"),
        ("sft", "data.problems", "problems"),
        ("sft", "data.traces", "traces"),
        ("grpo", "problems", "problems"),
        ("grpo", "validation", "problems"),
        ("evaluate", "problems", "problems"),
        ("micro", "traces", "traces"),
    ],
)
def test_a_file_that_was_cut_short_is_named_with_its_line(stage, key, original, fails, inputs, files, tmp_path):
    text = Path({"problems": files.problems, "traces": files.traces}[original]).read_text()
    (tmp_path / "cut.jsonl").write_text(text[: int(len(text) * 0.9)])
    code, line = fails(stage, inputs.argv(stage, **{key: str(tmp_path / "cut.jsonl")}))
    assert code == EXIT_FAILED
    assert "cut.jsonl: line 15: not JSON" in line
    assert "was it cut short?" in line


def test_a_wrong_field_is_named_with_its_line(fails, inputs, files, tmp_path):
    rows = [json.loads(line) for line in Path(files.traces).read_text().splitlines()]
    rows[3]["response_tokens"] = "four"
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stage, key in (("filter", "traces"), ("sft", "data.traces"), ("micro", "traces")):
        code, line = fails(stage, inputs.argv(stage, **{key: str(tmp_path / "wrong.jsonl")}))
        assert code == EXIT_FAILED
        assert 'wrong.jsonl: line 4: response_tokens: expected int, got "four"' in line
        shutil.rmtree(tmp_path / "w")


def test_a_workdir_that_holds_another_config_is_refused(fails, inputs, tmp_path):
    fails("filter", inputs.argv("filter", traces=str(tmp_path / "gone.jsonl")))
    code, line = fails("filter", inputs.argv("filter"))
    assert code == EXIT_USAGE
    assert "holds another config (traces: " in line


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["sft", "--config.model=/nowhere/model", "--config.data.problems=p", "--config.data.traces=t"], 1, "/nowhere"),
        (["grpo", "--config.nonsense=1"], 2, "config.nonsense"),
        (["run", "--config=nowhere.py"], 2, "nowhere.py"),
    ],
)
def test_a_real_process_ends_the_same_way(argv, code, words, tmp_path):
    command = [sys.executable, "-m", "w2sr_jax.cli", *argv, f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_device())
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert done.stdout == ""
