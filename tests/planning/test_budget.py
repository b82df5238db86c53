"""Hours and money from one planned step: the formulas by hand."""

import dataclasses

import pytest

from w2sr_jax.core import cost
from w2sr_jax.core.config import DataConfig, SamplingConfig
from w2sr_jax.core.stage_config import DistillConfig, GRPOConfig, Node, SFTConfig
from w2sr_jax.core.trace_config import SelectConfig, TransformConfig
from w2sr_jax.planning.budget import Budget, Step, budget, examples

STEP = Step(
    students=("s",),
    shape="s.json",
    slice="v5e:2x2",
    mesh={},
    train={},
    rows=128,
    tokens=4096,
    seconds=36.0,
    command="w2sr plan",
    made="today",
)
NO_ATTENTION = {"num_params": 1000, "num_layers": 0, "num_heads": 0, "head_dim": 0}


def sft(traces: str = "@traces/traces.jsonl", problems: str = "p.jsonl", epochs: float = 2.0) -> Node:
    data = DataConfig(problems=problems, traces=traces, max_length=4096, batch_size=128)
    return Node(name="arm", stage="sft", config=SFTConfig(model="s", data=data, epochs=epochs))


WRITTEN = Node(name="traces", stage="distill", config=DistillConfig(model="t", problems="p.jsonl"))


def test_sft_takes_as_many_planned_steps_as_epochs_times_traces_over_the_batch():
    nodes = [WRITTEN, sft(), dataclasses.replace(sft(), name="other")]
    found = budget(nodes, STEP, NO_ATTENTION, 2.5)
    assert found.sft_hours == pytest.approx(2 * 2.0 * 8400 / 128 * 36 / 3600)
    assert (found.grpo_hours, found.usd_per_hour) == (0, 10.0)
    assert found.line() == "Chips: v5e:2x2 (4); hours: 2.6 SFT; USD: 26"


def test_traces_are_counted_one_a_problem_or_as_drawn_down():
    assert examples(sft(), [WRITTEN, sft()]) == 8400
    assert examples(sft(problems="gym:syllogism:300:1"), [WRITTEN, sft()]) == 300
    select = TransformConfig(what="select", traces=("@traces/traces.jsonl",), select=SelectConfig(size=50))
    drawn = Node(name="drawn", stage="transform", config=select)
    after = TransformConfig(what="supervise", supervise="answer_only", traces=("@drawn/traces.jsonl",))
    changed = Node(name="changed", stage="transform", config=after)
    student = sft("@changed/traces.jsonl")
    assert examples(student, [WRITTEN, drawn, changed, student]) == 50
    assert examples(sft(), [WRITTEN, drawn, changed, sft()]) == 8400


def grpo(max_tokens: int) -> Node:
    sampling = SamplingConfig(max_tokens=max_tokens, temperature=1.0, n=8)
    config = GRPOConfig(model="s", problems="p.jsonl", steps=10, prompts_per_step=128, sampling=sampling)
    return Node(name="grpo", stage="grpo", config=config)


def test_a_token_of_the_ceiling_costs_eight_thirds_of_training_on_it():
    found = budget([grpo(3072)], STEP, NO_ATTENTION, 2.5)
    per_token = 36.0 / (128 * 4096)
    assert found.grpo_hours == pytest.approx(10 * 128 * 8 * 4096 * per_token * (1 + 1 / 3 + 1 / 3 + 1) / 3600)


def test_longer_responses_cost_their_attention_too():
    shape = {"num_params": 1000, "num_layers": 2, "num_heads": 2, "head_dim": 8}
    plain, longer = (budget([grpo(7168)], STEP, s, 2.5).grpo_hours for s in (NO_ATTENTION, shape))
    at = [cost.train_flops(tokens=1, context=context, **shape) for context in (4096, 8192)]
    assert longer == pytest.approx(plain * at[1] / at[0])


def test_a_line_says_that_grpo_is_an_upper_bound():
    found = Budget(slice="v5p:2x2x2", sft_hours=1.04, grpo_hours=200.4, usd_per_hour=33.6)
    assert found.line() == "Chips: v5p:2x2x2 (8); hours: 1.0 SFT + at most 200 GRPO; USD: 35 + at most 6,733"
