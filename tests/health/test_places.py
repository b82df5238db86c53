"""Workdir, bucket, cache and model: real files, and real reasons for failing."""

import json
import os
import resource

import pytest

from w2sr_jax.health import places
from w2sr_jax.health.check import FAIL, PASS, WARN


def test_a_workdir_is_written_read_and_left_clean(tmp_path):
    check = places.check_workdir(tmp_path / "new", 0.0, 0.0, 2)
    assert check.status == PASS
    assert "MiB/s with fsync" in check.found
    assert not list((tmp_path / "new").iterdir())


def test_a_full_disk_fails(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        check = places.check_workdir(tmp_path, 0.0, 0.0, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (check.status, check.found) == (FAIL, f"{tmp_path}: File too large")
    assert not list(tmp_path.iterdir())


def test_a_workdir_that_cannot_be_made_fails(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "w", places.Path("/proc/w2sr")):
        check = places.check_workdir(place, 0.0, 0.0, 1)
        assert check.status == FAIL
        assert check.found.startswith(f"{place}: ")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_workdir_fails(tmp_path):
    tmp_path.chmod(0o500)
    assert places.check_workdir(tmp_path, 0.0, 0.0, 1).found == f"{tmp_path}: Permission denied"


def test_too_little_space_fails_and_a_slow_disk_is_a_warning(tmp_path):
    check = places.check_workdir(tmp_path, 1e9, 0.0, 1)
    assert check.status == FAIL
    assert check.found.endswith(f" GiB free in {tmp_path}, 1e+09 wanted")
    assert places.check_workdir(tmp_path, 0.0, 1e9, 1).status == WARN


def test_a_disk_that_changes_bytes_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(places.os, "fsync", lambda fd: os.pwrite(fd, b"another", 5))
    assert places.check_workdir(tmp_path, 0.0, 0.0, 1).found.endswith("gives back other bytes than were written")


def test_one_process_shares_its_workdir_with_itself(tmp_path):
    assert places.check_shared(tmp_path).found == "one process"
    assert not list(tmp_path.iterdir())
    assert places.check_shared(tmp_path / "none").status == FAIL


def test_a_bucket_is_written_read_and_left_clean(tmp_path):
    assert places.check_bucket(str(tmp_path / "mounted")).status == PASS
    assert not list((tmp_path / "mounted").iterdir())
    check = places.check_bucket("/proc/w2sr")
    assert check.status == FAIL
    assert check.found.startswith("/proc/w2sr: FileNotFoundError: ")
    assert "objectUser" in check.remedy


def test_an_address_that_nothing_here_opens_fails():
    check = places.check_bucket("gs://a-bucket/w2sr")
    assert check.status == FAIL
    assert check.found.startswith("gs://a-bucket/w2sr: this installation cannot open such paths (")
    assert check.remedy.startswith("mount it")


def cache_at(monkeypatch, place, offline=False):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)


def test_a_cache_that_cannot_be_written_fails_unless_offline(tmp_path, monkeypatch):
    cache_at(monkeypatch, tmp_path / "hub")
    assert places.check_cache(0.0).status == PASS
    assert places.check_cache(1e9).status == FAIL
    cache_at(monkeypatch, "/proc/w2sr")
    check = places.check_cache(0.0)
    assert (check.status, check.remedy) == (FAIL, "set HF_HOME to a directory that can be written")
    cache_at(monkeypatch, "/proc/w2sr", offline=True)
    assert places.check_cache(0.0).status == WARN


def test_a_model_is_found_in_a_directory_a_workdir_or_the_cache(tmp_path, monkeypatch):
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    (export / "config.json").write_text("{}")
    assert places.check_model(str(tmp_path / "run")).found == f"{export}: no safetensors files"
    (export / "model.safetensors").write_bytes(b"weights")
    assert places.check_model(str(tmp_path / "run")).status == PASS
    assert places.check_model(str(export)).status == PASS
    assert places.check_model(str(tmp_path)).status == FAIL
    assert places.check_model("not a model").status == FAIL

    cache_at(monkeypatch, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    assert places.check_model("who/what").status == WARN
    cache_at(monkeypatch, tmp_path / "hub", offline=True)
    check = places.check_model("who/what")
    assert (check.status, check.found) == (FAIL, "who/what: not in the cache, and HF_HUB_OFFLINE is set")
    assert check.remedy.endswith("hf download who/what")
    snapshot = tmp_path / "hub/models--who--what/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/models--who--what/refs").mkdir()
    (tmp_path / "hub/models--who--what/refs/main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert places.check_model("who/what").status == PASS


def in_cache(tmp_path, monkeypatch, offline=False):
    """The snapshot of who/what in a cache, with config.json alone."""
    cache_at(monkeypatch, tmp_path / "hub", offline)
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    snapshot = tmp_path / "hub/models--who--what/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/models--who--what/refs").mkdir()
    (tmp_path / "hub/models--who--what/refs/main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    return snapshot


def test_a_model_of_which_the_cache_has_a_part_will_be_downloaded(tmp_path, monkeypatch):
    snapshot = in_cache(tmp_path, monkeypatch)
    check = places.check_model("who/what")
    assert (check.status, check.found) == (WARN, "who/what: neither a directory here nor in the cache as a whole yet")
    (snapshot / places.INDEX).write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    (snapshot / "1.safetensors").write_bytes(b"weights")
    assert places.check_model("who/what").status == WARN
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert places.check_model("who/what").status == FAIL
    (snapshot / "2.safetensors").write_bytes(b"weights")
    assert places.check_model("who/what").status == PASS


def test_a_link_of_the_cache_that_points_to_nothing_fails(tmp_path, monkeypatch):
    snapshot = in_cache(tmp_path, monkeypatch)
    (snapshot / places.SINGLE).symlink_to("../../blobs/gone")
    check = places.check_model("who/what")
    assert (check.status, check.found) == (FAIL, f"{snapshot}: not there, or not to be read: model.safetensors")


@pytest.mark.parametrize("index", ['{"weight_map": {"a": "model.safetensors", "b": "2.safetensors"}}', "{}", "no JSON"])
def test_a_directory_without_all_files_of_its_index_fails(tmp_path, index):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / places.SINGLE).write_bytes(b"weights")
    assert places.check_model(str(tmp_path)).status == PASS
    (tmp_path / places.INDEX).write_text(index)
    check = places.check_model(str(tmp_path))
    assert check.status == FAIL
    assert check.found.endswith("2.safetensors" if "weight_map" in index else places.INDEX)
