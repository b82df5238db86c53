from benchmarks.micro_stages import main
from w2sr_jax.core.cost import LedgerLine, append_ledger


def test_the_seconds_of_an_experiment_are_summed_by_stage(tmp_path):
    for name, stage, seconds in (("a", "sft", 2.0), ("b", "grpo", 6.0), ("c", "sft", 2.0), ("c.old-1", "sft", 99.0)):
        (tmp_path / name).mkdir()
        line = LedgerLine(
            stage=stage, name=name, device_kind="cpu", device_count=1, seconds=seconds, device_seconds=seconds,
            compile_seconds=1.0, tokens_in=1, tokens_out=1, flops=1.0,
        )  # fmt: skip
        append_ledger(tmp_path / name, line)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in main(tmp_path).splitlines()[2:]]
    assert rows == [["grpo", "1", "6.0", "1.0", "60.0"], ["sft", "2", "4.0", "2.0", "40.0"]]
