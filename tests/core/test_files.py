import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2sr_jax.core.errors import W2SRError
from w2sr_jax.core.files import JsonlAppender, read_json, read_jsonl, sha256_file, write_json, write_jsonl, write_text
from w2sr_jax.core.records import Problem, RecordError, Trace

TRACE = Trace(problem_id="p", sample=0, response="r", response_tokens=2, finish_reason="stop", teacher="t")
PROBLEMS = [Problem(id="a", problem="p", answer="1"), Problem(id="b", problem="p", answer="1", source="s")]


@pytest.mark.parametrize("text", ['{"a": 1', "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\x00"])
def test_a_line_that_is_not_json_is_one_short_line(text, tmp_path):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(RecordError, match=r"x.jsonl: line 1: not JSON") as error:
        read_jsonl(tmp_path / "x.jsonl", Problem)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_bytes_that_are_not_utf8_a_folder_and_a_missing_file_are_one_line_each(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\n")
    for path, message in ((tmp_path / "x.jsonl", "cannot be read"), (tmp_path, "cannot be read")):
        with pytest.raises(RecordError, match=message):
            read_jsonl(path, Problem)
    with pytest.raises(RecordError, match="no such file"):
        read_jsonl(tmp_path / "none", Problem)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(RecordError, match=r"deep\.json: not JSON"):
        read_json(tmp_path / "deep.json")
    for read in (read_json, sha256_file):
        with pytest.raises(RecordError, match="none: "):
            read(tmp_path / "none")


def test_blank_lines_are_skipped_but_counted(tmp_path):
    (tmp_path / "x.jsonl").write_text('\n\n{"id": "a", "problem": "p", "answer": 1}\n')
    with pytest.raises(RecordError, match="line 3: answer"):
        read_jsonl(tmp_path / "x.jsonl", Problem)


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"a": "é"})
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert os.listdir(path.parent) == ["x.json"]


def test_half_of_a_surrogate_pair_is_written_and_read_again(tmp_path):
    write_json(tmp_path / "x.json", {"path": "caf\udce9", "other": "é"})
    assert read_json(tmp_path / "x.json") == {"path": "caf\udce9", "other": "é"}
    with pytest.raises(W2SRError, match=r"x.txt: cannot be written: 'utf-8' codec can't encode"):
        write_text(tmp_path / "x.txt", "caf\udce9")
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_part_file(tmp_path):
    def fail():
        yield PROBLEMS[0]
        raise W2SRError("stopped half-way")

    path = tmp_path / "x.jsonl"
    write_jsonl(path, PROBLEMS)
    with pytest.raises(W2SRError, match="half-way"):
        write_jsonl(path, fail())
    assert read_jsonl(path, Problem) == PROBLEMS
    assert os.listdir(tmp_path) == ["x.jsonl"]


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(W2SRError, match=r"file/x.json: cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(W2SRError, match=r"file/x.jsonl: cannot be written"):
        JsonlAppender(tmp_path / "file" / "x.jsonl", Trace)


def test_an_appender_continues_what_is_there(tmp_path):
    path = tmp_path / "sub" / "traces.jsonl"
    second = dataclasses.replace(TRACE, sample=1)
    with JsonlAppender(path, Trace) as appender:
        assert appender.existing == []
        appender.append(TRACE)
        assert read_jsonl(path, Trace) == [TRACE], "an append reaches the file at once"
    with JsonlAppender(path, Trace) as appender:
        assert appender.existing == [TRACE]
        appender.append(second, dataclasses.replace(second, sample=2))
    assert [t.sample for t in read_jsonl(path, Trace)] == [0, 1, 2]


@given(cut=st.integers(1, 130))
def test_a_half_written_last_line_is_dropped_and_the_rest_kept(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "traces.jsonl"
    write_jsonl(path, [TRACE, dataclasses.replace(TRACE, sample=1)])
    path.write_bytes(path.read_bytes()[:-cut])
    with JsonlAppender(path, Trace) as appender:
        assert appender.existing == [TRACE]
        appender.append(dataclasses.replace(TRACE, sample=7))
    assert [t.sample for t in read_jsonl(path, Trace)] == [0, 7]


def test_a_broken_line_in_the_middle_is_an_error_and_is_kept(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text("{broken\n" + json.dumps(TRACE.to_json()) + "\n")
    before = path.read_bytes()
    with pytest.raises(RecordError, match="line 1: not JSON"):
        JsonlAppender(path, Trace)
    assert path.read_bytes() == before


APPENDING = """
import dataclasses, sys
from w2sr_jax.core.files import JsonlAppender
from w2sr_jax.core.records import Trace
t = Trace(problem_id="p", sample=0, response="r" * 500, response_tokens=2, finish_reason="stop", teacher="t")
with JsonlAppender(sys.argv[1], Trace) as appender:
    for i in range(len(appender.existing), 10**9):
        appender.append(dataclasses.replace(t, sample=i))
        print(i, flush=True)
"""


def test_a_kill_loses_nothing_that_was_appended_and_doubles_nothing(tmp_path):
    path = tmp_path / "traces.jsonl"
    for wait in (0.0, 0.02, 0.05):
        process = subprocess.Popen([sys.executable, "-c", APPENDING, path], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        printed = process.communicate()[0].split("\n")[:-1]
        with JsonlAppender(path, Trace) as appender:
            samples = [t.sample for t in appender.existing]
        assert samples == list(range(len(samples)))
        assert not printed or len(samples) > int(printed[-1])


FULL_DISK = """
import resource, sys
from w2sr_jax.core.errors import W2SRError
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
exec(sys.argv[2].split("with Json")[0])
try:
    exec("with Json" + sys.argv[2].split("with Json")[1])
except W2SRError as error:
    sys.exit(f"one line: {error}")
"""


def test_a_disk_that_fills_up_is_one_line_that_names_the_file(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "traces.jsonl"), APPENDING]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"one line: {tmp_path / 'traces.jsonl'}: cannot be written: File too large\n"
    with JsonlAppender(tmp_path / "traces.jsonl", Trace) as appender:
        assert [t.sample for t in appender.existing] == list(range(len(done.stdout.split())))
