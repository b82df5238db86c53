import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.records import GradedTrace, Prediction, Problem, RecordError, Trace

TRACE = Trace(problem_id="p", sample=0, response="r", response_tokens=2, finish_reason="stop", teacher="t")
RECORDS = [
    Problem(id="a", problem="p", answer="1"),
    Problem(id="b", problem="p", answer="1", source="s", level="2", verifier="exact"),
    TRACE,
    GradedTrace(**dataclasses.asdict(TRACE), extracted="1", correct=True, grader="g", hygiene=["loop"]),
    Prediction(
        benchmark="b",
        problem_id="p",
        sample=1,
        response="r",
        response_tokens=3,
        finish_reason="length",
        extracted=None,
        correct=False,
        hygiene=[],
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.schema)
def test_a_record_is_read_as_it_was_written_with_its_schema(record, tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [record, record])
    assert read_jsonl(tmp_path / "x.jsonl", type(record)) == [record, record]
    assert json.loads((tmp_path / "x.jsonl").read_text().splitlines()[0])["schema"] == record.schema


@given(st.lists(st.text(st.characters(codec=None)), max_size=5))
def test_any_text_survives_a_file_line_ends_and_lone_surrogates_too(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("texts") / "x.jsonl"
    records = [dataclasses.replace(TRACE, response=text) for text in texts]
    write_jsonl(path, records)
    assert read_jsonl(path, Trace) == records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": "0"}, 'sample: expected int, got "0"'),
        ({"sample": True}, "sample: expected int, got true"),
        ({"sample": 1.0}, "sample: expected int, got 1.0"),
        ({"response": None}, "response: expected str, got null"),
        ({"finish_reason": "eos"}, "finish_reason: expected Literal['stop', 'length', 'failed'], got \"eos\""),
        ({"extra": 1}, "extra: unknown field"),
        ({"schema": "trace/2"}, "schema: expected 'trace/1', got 'trace/2'"),
        ({"teacher": ...}, "teacher: missing"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(change, message, tmp_path):
    row = TRACE.to_json() | change
    lines = [TRACE.to_json(), {key: value for key, value in row.items() if value is not ...}]
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(RecordError) as error:
        read_jsonl(path, Trace)
    assert str(error.value) == f"{path}: line 2: {message}"


@pytest.mark.parametrize("value", [[1], "text", None, 3])
def test_a_line_that_holds_no_object_is_named(value, tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(value) + "\n")
    with pytest.raises(RecordError, match=r"x.jsonl: line 1: expected an object, got "):
        read_jsonl(tmp_path / "x.jsonl", Problem)


def test_a_list_field_is_checked_to_its_elements(tmp_path):
    row = RECORDS[3].to_json() | {"hygiene": ["loop", 3]}
    with pytest.raises(RecordError, match=r"hygiene: expected list\[str\]"):
        GradedTrace.from_json(row)


def test_fields_with_defaults_and_the_schema_may_be_left_out():
    assert Problem.from_json({"id": "a", "problem": "p", "answer": "1"}) == RECORDS[0]
