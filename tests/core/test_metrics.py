"""metrics.jsonl: what is read of a file that a kill cut short, and what reading leaves of it."""

from w2sr_jax.core.metrics import MetricWriter, read_metrics


def test_reading_leaves_out_a_line_cut_short_and_does_not_touch_the_file(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(0, {"loss": 2.0})
    path = tmp_path / "metrics.jsonl"
    cut = path.read_bytes() + b'{"step": 1, "lo'
    path.write_bytes(cut)
    before = path.stat()
    assert [row["loss"] for row in read_metrics(tmp_path)] == [2.0]
    assert path.read_bytes() == cut
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_writer_that_resumes_mends_the_file(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in range(3):
            writer.write(step, {"loss": 2.0 - step})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 3, "lo')
    with MetricWriter(tmp_path, resume_step=2) as writer:
        assert [row["step"] for row in writer.earlier] == [0, 1]
        writer.write(2, {"loss": 9.0})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [2.0, 1.0, 9.0]
