import dataclasses
import itertools
import json
import time

import jax
import numpy as np
import pytest

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.core.files import read_jsonl, write_jsonl
from w2sr_jax.core.records import GradedTrace, RecordError, Trace
from w2sr_jax.data.pipeline import make_pipeline


def take(pipeline, n):
    return list(itertools.islice(pipeline, n))


def assert_equal(left, right):
    for a, b in zip(left, right, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def rows_of(batches):
    return [row.tobytes() for batch in batches for row in batch.tokens_BT]


def trace(problem_id="p/0", sample=0, teacher="t", response="r"):
    return Trace(
        problem_id=problem_id,
        sample=sample,
        response=response,
        response_tokens=2,
        finish_reason="stop",
        teacher=teacher,
    )


@pytest.mark.parametrize(("template", "closing"), [("plain", 256), ("qwen-boxed", 258)])
def test_the_closing_tokens_label_is_learnt_and_prompt_and_padding_are_not(template, closing, make_data, tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 256
    pipeline = make_pipeline(make_data(template=template, max_length=256, batch_size=2), tokenizer)
    texts, closings = set(), 0
    for batch in take(pipeline, pipeline.steps_for(1)):
        learnt = batch.loss_mask_BT == 1
        assert not batch.loss_mask_BT[batch.segment_ids_BT == 0].any()
        for b, row in enumerate(batch.segment_ids_BT):
            for segment in range(1, row.max() + 1):
                here = row == segment
                target = batch.targets_BT[b, here & learnt[b]]
                assert target[-1] == closing
                texts.add(tokenizer.decode(target[:-1]))
                closings += 1
    assert closings >= pipeline.num_examples
    traces = read_jsonl(make_data().traces, Trace)
    assert texts == {t.response for t in traces}, "what is learnt is each response, whole, and no prompt"


def test_the_prompt_stands_before_the_response_in_full(make_data, tokenizer):
    pipeline = make_pipeline(make_data(lengths=(4,), template="abel", max_length=128, batch_size=1), tokenizer)
    batch = next(pipeline)
    assert tokenizer.decode(batch.tokens_BT[0, batch.segment_ids_BT[0] == 1]) == (
        "Question:\nWhat is 0?\nAnswer:\nLet's think step by step.\n0:ab<|endoftext|>"
    )
    assert batch.loss_mask_BT.sum() == 5


def test_a_response_that_was_cut_off_is_not_closed(make_data, tokenizer):
    pipeline = make_pipeline(make_data(lengths=(4, 4), finish={1: "length"}, packing=False, batch_size=2), tokenizer)
    batch = next(pipeline)
    ends = {int(t[m == 1][-1]) for t, m in zip(batch.targets_BT, batch.loss_mask_BT)}
    assert ends == {256, tokenizer("b")["input_ids"][0]}


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, 16])
def test_every_row_is_used_exactly_once_per_epoch_and_epochs_are_shuffled_anew(
    packing, batch_size, make_data, tokenizer
):
    pipeline = make_pipeline(make_data(packing=packing, batch_size=batch_size), tokenizer)
    rows, epochs = pipeline.num_rows, 6
    stream = rows_of(take(pipeline, -(-rows * epochs // batch_size)))
    orders = [tuple(stream[i * rows : (i + 1) * rows]) for i in range(epochs)]
    assert all(len(set(order)) == rows and set(order) == set(orders[0]) for order in orders)
    assert len(set(orders)) > 1


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "steps"),
    [
        (129, 128, 5.0, 6),  # batches run on into the next epoch: 6 of them hold 5 x 129 rows, 10 hold twice as many
        (128, 128, 5.0, 5),
        (10, 4, 1.0, 3),
        (10, 4, 2.0, 5),
        (10, 1, 1.1, 11),  # which a computer multiplies to a little above 11
        (3, 128, 1.0, 1),
        (3, 128, 0.1, 1),
        (3, 128, 0.0, 0),
    ],
)
def test_epochs_take_as_many_batches_as_hold_their_rows(rows, batch_size, epochs, steps, make_data, tokenizer):
    config = make_data(lengths=[4] * rows, packing=False, batch_size=batch_size)
    assert make_pipeline(config, tokenizer).steps_for(epochs) == steps


def test_the_seed_alone_decides_the_order(make_data, tokenizer):
    config = make_data(packing=False)
    first, again = (take(make_pipeline(config, tokenizer), 5) for _ in range(2))
    assert_equal(first, again)
    other = take(make_pipeline(dataclasses.replace(config, seed=2**40), tokenizer), 5)
    assert rows_of(first) != rows_of(other)


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(process_count, make_data, tokenizer):
    config = make_data(packing=False, batch_size=8)
    whole = take(make_pipeline(config, tokenizer), 5)
    parts = [take(make_pipeline(config, tokenizer, p, process_count), 5) for p in range(process_count)]
    joined = [jax.tree.map(lambda *xs: np.concatenate(xs), *batches) for batches in zip(*parts)]
    assert_equal(whole, joined)


def test_a_batch_that_the_processes_cannot_share_is_a_usage_error(make_data, tokenizer):
    with pytest.raises(UsageError, match="batch_size: 4 rows cannot be split over 3 processes"):
        make_pipeline(make_data(), tokenizer, 0, 3)


def test_a_run_resumed_at_any_step_continues_exactly(make_data, tokenizer):
    config = make_data(packing=False, batch_size=3)  # 10 rows: batches cross the epochs' borders
    unbroken = take(make_pipeline(config, tokenizer), 12)
    running = make_pipeline(config, tokenizer)
    for step in range(9):
        state = json.loads(json.dumps(running.get_state()))
        resumed = make_pipeline(config, tokenizer)
        take(resumed, step % 3)  # wherever it stood before
        resumed.set_state(state)
        assert_equal(take(resumed, 3), unbroken[step : step + 3])
        assert running.get_state() == state
        next(running)


def test_a_run_may_be_resumed_on_another_number_of_processes(make_data, tokenizer):
    config = make_data(packing=False)
    one = make_pipeline(config, tokenizer)
    take(one, 4)
    two = [make_pipeline(config, tokenizer, p, 2) for p in range(2)]
    for pipeline in two:
        pipeline.set_state(one.get_state())
    joined = jax.tree.map(lambda *xs: np.concatenate(xs), *(next(p) for p in two))
    assert_equal([next(one)], [joined])


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 2}, {"max_length": 64}, {"template": "abel"}])
def test_a_position_in_other_data_is_refused(change, make_data, tokenizer):
    state = make_pipeline(make_data(max_length=96), tokenizer).get_state()
    other = make_pipeline(make_data(**{"max_length": 96} | change), tokenizer)
    with pytest.raises(W2SRError, match="other training data"):
        other.set_state(state)


def test_an_overlong_example_is_dropped_and_counted(make_data, tokenizer):
    pipeline = make_pipeline(make_data(lengths=(5, 100, 7)), tokenizer)
    assert (pipeline.num_examples, pipeline.dropped) == (2, {"overlong": 1, "no_target": 0, "truncated": 0})


def test_an_overlong_example_is_truncated_without_a_closing_token(make_data, tokenizer):
    config = make_data(lengths=(100,), overlong="truncate", batch_size=1)
    pipeline = make_pipeline(config, tokenizer)
    assert (pipeline.num_examples, pipeline.dropped) == (1, {"overlong": 0, "no_target": 0, "truncated": 1})
    batch = next(pipeline)
    assert (batch.segment_ids_BT == 1).all()
    assert not (batch.targets_BT == 256).any()


def test_a_prompt_that_leaves_no_room_for_a_response_is_not_truncated_but_dropped(make_data, tokenizer):
    with pytest.raises(W2SRError, match="none of 1 traces fits into max_length=8"):
        make_pipeline(make_data(lengths=(5,), overlong="truncate", max_length=8), tokenizer)


def test_an_overlong_example_can_be_an_error(make_data, tokenizer):
    with pytest.raises(W2SRError, match=r"problem 'p/1' sample 0: 111 tokens are more than max_length=48"):
        make_pipeline(make_data(lengths=(5, 100), overlong="error"), tokenizer)


def test_graded_traces_are_read_as_raw_ones_are(make_data, tokenizer):
    config = make_data()
    raw = take(make_pipeline(config, tokenizer), 3)
    graded = [
        GradedTrace(**dataclasses.asdict(t), extracted=None, correct=False, grader="g", hygiene=[])
        for t in read_jsonl(config.traces, Trace)
    ]
    write_jsonl(config.traces, graded)
    assert_equal(raw, take(make_pipeline(config, tokenizer), 3))


def test_several_samples_and_teachers_of_one_problem_are_all_used(make_data, tokenizer):
    traces = [trace(sample=0), trace(sample=1), trace(teacher="u")]
    assert make_pipeline(make_data(traces=traces), tokenizer).num_examples == 3


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ([], "holds no traces"),
        ([trace(), trace(sample=1), trace()], r"line 3: sample: 0 of problem 'p/0' is also on line 1"),
        ([trace("p/77")], r"problem_id: 'p/77' is not in .*problems.jsonl"),
    ],
)
def test_bad_traces_are_one_line_that_names_the_file(traces, message, make_data, tokenizer):
    config = make_data(traces=traces)
    with pytest.raises(RecordError, match=message) as error:
        make_pipeline(config, tokenizer)
    assert str(error.value).startswith(config.traces)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [10, 300])
def test_a_truncated_traces_file_is_named_with_its_line(cut, make_data, tokenizer, tmp_path):
    config = make_data()
    data = (tmp_path / "traces.jsonl").read_bytes()
    (tmp_path / "traces.jsonl").write_bytes(data[:-cut])
    with pytest.raises(RecordError, match=r"traces.jsonl: line \d+: not JSON.*was it cut short"):
        make_pipeline(config, tokenizer)


def test_a_thousand_short_examples_start_within_a_second(make_data, tokenizer):
    make_pipeline(make_data(), tokenizer)  # imports Grain
    config = make_data(lengths=[20 + i % 20 for i in range(1000)], batch_size=32)
    start = time.process_time()
    next(make_pipeline(config, tokenizer))
    assert time.process_time() - start < 1.0
