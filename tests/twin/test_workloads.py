"""Which workloads a comparison has, and what each is asked."""

import dataclasses

from configs.compare import tiny
from w2sr_jax.twin import workloads


def test_grpo_may_have_other_chunks_than_sft(monkeypatch, tmp_path):
    def asked(config, directory, threads, env):
        data = config.sft.data
        return {"chunk": config.sft.train.loss_chunk, "shape": [data.batch_size, data.max_length]}

    monkeypatch.setattr(workloads, "_sft", asked)
    monkeypatch.setattr(workloads, "_grpo", asked)
    config = dataclasses.replace(tiny(), generate=(0, 4, 8))
    chunk = config.sft.train.loss_chunk
    for number, (given, expected) in enumerate(((0, chunk), (chunk + 1, chunk + 1))):
        changed = dataclasses.replace(config, grpo_loss_chunk=given)
        found = list(workloads.measure_all(changed, tmp_path / str(number), 1, {}).values())
        assert [one["chunk"] for one in found] == [chunk, expected]
        assert [one["shape"] for one in found] == [list(config.shapes[0]), list(config.grpo_shapes[0])]
