"""Servers as an engine: several share the work, lost ones are survived, and every refusal is one line."""

import errno
import os
import socket
import time

import numpy as np
import pytest

from tests.engine.models import save_model
from tests.engine.rote_server import RoteServer
from w2sr_jax.core.config import VllmConfig
from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.engine import sync as weight_sync
from w2sr_jax.engine import vllm_engine, vllm_server
from w2sr_jax.engine.base import Sampling
from w2sr_jax.engine.sync import open_sync
from w2sr_jax.engine.vllm_engine import VllmEngine
from w2sr_jax.engine.vllm_start import model_names

SAMPLING = Sampling(max_tokens=9)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("model") / "teacher"
    save_model(root)
    return root


@pytest.fixture
def serve(directory):
    """serve(**options) -> RoteServer, closed with the test."""
    servers = []

    def start(**options):
        servers.append(RoteServer(**{"model": str(directory)} | options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def attach(directory, *servers, **options):
    return VllmEngine(directory, batch_size=2, options=VllmConfig(urls=tuple(s.url for s in servers), **options))


def test_servers_share_the_requests_and_answers_keep_the_order_of_the_prompts(directory, serve):
    servers, told = [serve(), serve()], []
    prompts = [[i, i + 1] for i in range(40)]
    with attach(directory, *servers) as engine:
        groups = engine.generate(prompts, SAMPLING, on_finished=lambda *call: told.append(call[:2]))
        described = engine.describe()
    assert [group[0].token_ids for group in groups] == [[*prompt, 0] for prompt in prompts]
    assert sorted(told) == [(i, 0) for i in range(40)]
    assert all(server.asked for server in servers)
    assert sorted(servers[0].asked + servers[1].asked) == prompts
    assert (described["mode"], described["servers"], described["version"]) == ("server", 2, "rote")
    assert (described["max_model_len"], described["batch_invariant"]) == (99, True)
    assert (described["device_kind"], described["devices"]) == ("rote", 4)  # two workers behind each


def test_a_lost_server_leaves_its_share_to_the_others(directory, serve):
    servers = [serve(dies_at=5), serve()]
    prompts = [[i] for i in range(40)]
    with attach(directory, *servers) as engine:
        groups = engine.generate(prompts, SAMPLING)
        assert engine.describe()["servers"] == 1
        assert engine.describe()["restarts"] == 1
    assert [group[0].token_ids for group in groups] == [[*prompt, 0] for prompt in prompts]
    assert len(servers[0].asked) == 5
    assert sorted(servers[0].asked + servers[1].asked) == prompts


def test_a_server_that_no_route_leads_to_any_more_is_lost_like_any_other(directory, serve, monkeypatch):
    servers, reach = [serve(), serve()], vllm_server.DIRECT.open

    def cut(request, **options):
        if request.full_url.startswith(servers[0].url):
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        return reach(request, **options)

    with attach(directory, *servers) as engine:
        monkeypatch.setattr(vllm_server.DIRECT, "open", cut)
        groups = engine.generate([[i] for i in range(9)], SAMPLING)
    assert [group[0].token_ids for group in groups] == [[i, 0] for i in range(9)]
    assert servers[0].asked == []


def test_when_the_last_server_is_lost_the_engine_gives_up_in_one_line(directory, serve, monkeypatch):
    monkeypatch.setattr(vllm_engine, "LONGEST_WAIT_S", 0.01)
    kept = []
    with attach(directory, serve(dies_at=3), restarts=2) as engine:
        with pytest.raises(W2SRError) as raised:
            engine.generate([[i] for i in range(9)], SAMPLING, on_finished=lambda *call: kept.append(call))
        with pytest.raises(W2SRError, match="cannot be used any more"):
            engine.generate([[1]], SAMPLING)
    assert "no server answers at http://127.0.0.1" in str(raised.value)
    assert str(raised.value).endswith("it died 3 times, and config.decode.vllm.restarts is 2")
    assert "\n" not in str(raised.value)
    assert len(kept) == 3


def test_a_server_that_nobody_runs_is_one_line_and_one_of_several_is_a_warning(directory, serve, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(W2SRError, match=rf"^vllm: no server answers at {url} \(.*refused\); start one, e\.g\. .*$"):
        VllmEngine(directory, options=VllmConfig(urls=(url,)))
    running = serve()
    with VllmEngine(directory, options=VllmConfig(urls=(url, running.url))) as engine:
        assert engine.describe()["servers"] == 1
    assert f"no server answers at {url}" in caplog.text


def test_another_model_is_refused_unless_it_is_named(directory, serve):
    server = serve(model="somebody/else")
    with pytest.raises(W2SRError, match=r"serves somebody/else \(somebody/else\), not .*teacher; start it with that"):
        attach(directory, server)
    with attach(directory, server, served_model="somebody/else") as engine:
        assert engine.generate([[5]], SAMPLING)[0][0].token_ids == [5, 0]


def test_what_a_server_refuses_is_one_line_and_not_asked_again(directory, serve):
    server = serve()
    expected = rf"^{server.url}: HTTP 400: 66 is not for me$"
    with attach(directory, server) as engine, pytest.raises(W2SRError, match=expected):
        engine.generate([[66]], SAMPLING)
    assert server.asked == []


def test_urls_that_are_none_and_servers_of_another_kind_are_one_line(directory):
    with pytest.raises(UsageError, match=r"^config\.decode\.vllm\.urls: expected http://HOST:PORT, got 'host:80'$"):
        VllmEngine(directory, options=VllmConfig(urls=("host:80",)))

    class Stranger(RoteServer):
        def get(self, path):
            return 404, {"error": "what?"}

    stranger = Stranger(model="x")
    with pytest.raises(W2SRError, match=r"is no vLLM server: .*HTTP 404: what\?$"):
        VllmEngine(directory, options=VllmConfig(urls=(stranger.url,)))
    stranger.close()


def test_vllm_need_not_be_installed_where_its_servers_are_elsewhere(directory, serve, monkeypatch):
    monkeypatch.setattr(vllm_engine, "is_installed", lambda: False)
    with attach(directory, serve()) as engine:
        assert engine.generate([[5]], SAMPLING)[0][0].token_ids == [5, 0]


def test_leaving_a_generate_early_waits_for_no_server(directory, serve):
    server = serve()
    answer, waited = server.post, time.monotonic()
    server.post = lambda path, body: time.sleep(5 * (body.get("prompt") == [7])) or answer(path, body)

    def leave(*call):
        raise KeyboardInterrupt

    engine = attach(directory, server)
    with pytest.raises(KeyboardInterrupt):
        engine.generate([[7], [5]], SAMPLING, on_finished=leave)
    assert time.monotonic() - waited < 4
    with pytest.raises(W2SRError, match="left before its end"):
        engine.generate([[5]], SAMPLING)


def test_new_weights_reach_every_server_and_one_that_cannot_take_them_says_how(directory, serve, tmp_path):
    save_model(tmp_path / "w7", 7)
    servers = [serve(), serve()]
    with attach(directory, *servers) as engine:
        engine.update_weights(tmp_path / "w7")
    assert [server.weights for server in servers] == [7, 7]
    closed = serve(dev_mode=False)
    with attach(directory, closed) as engine:
        assert engine.describe()["device_kind"] == "unknown"
        with pytest.raises(
            W2SRError, match=r"did not take new weights; start the server so that it can: VLLM_SERVER_DEV"
        ):
            engine.update_weights(tmp_path / "w7")
        with pytest.raises(W2SRError, match="cannot be used any more"):
            engine.generate([[5]], SAMPLING)


def test_a_sync_is_proved_on_every_server_and_names_the_one_with_other_weights(directory, serve, tmp_path):
    """The trainer's logprobs are -1 here, which is what a server says that has loaded weights named w...1."""

    def score(prompts, responses):
        return [np.full(len(response), -1.0) for response in responses]

    def write(path):
        save_model(path)

    good, bad = serve(), serve(stale=True)
    with attach(directory, good) as engine:
        sync = open_sync(engine, "run", str(tmp_path), [[5], [6, 7]], 1e-3)
        sync.folder = tmp_path / "w1"
        found = sync(write, score)
        assert found["sync_gap"] == 0.0
        assert found["sync_seconds"] > 0
        sync.close()
        assert not sync.folder.exists()
    with attach(directory, good, bad) as engine:
        sync = open_sync(engine, "run", str(tmp_path), [[5], [6, 7]], 1e-3)
        sync.folder = tmp_path / "w1"
        with pytest.raises(
            W2SRError, match=rf"^weight sync: vLLM \({bad.url}\) does not compute .* up to 1 away, 0\.001"
        ):
            sync(write, score)


def test_a_run_finds_the_folder_of_its_syncs_again_and_two_runs_have_two(directory, serve, tmp_path):
    with attach(directory, serve()) as engine:
        folders = [open_sync(engine, run, str(tmp_path), [[5]], 1.0).folder for run in ("a", "a", "b")]
        assert folders[0] == folders[1] != folders[2]
        assert folders[0].parent == tmp_path


def test_weights_in_a_public_place_lie_in_a_folder_of_this_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_sync, "TMPFS", tmp_path)

    def opened():
        return open_sync(None, "run", "", [[5]], 1.0).folder.parent

    assert opened() == opened() == tmp_path / f"w2sr-{os.getuid()}"
    assert opened().stat().st_mode & 0o777 == 0o700
    opened().chmod(0o777)  # as anybody could have made it, who then writes there
    with pytest.raises(W2SRError, match=r"w2sr-\d+: is not a directory of this user alone"):
        opened()


def test_a_model_has_the_names_that_servers_may_give_it(tmp_path):
    cached = tmp_path / "models--Qwen--Qwen2.5-0.5B/snapshots/abc"
    assert "Qwen/Qwen2.5-0.5B" in model_names("Qwen/Qwen2.5-0.5B", cached)
    assert model_names("x", cached)[-1] == "Qwen/Qwen2.5-0.5B"
    assert model_names(tmp_path / "run/export", tmp_path / "run/export")[-1] == "run"
    assert model_names(tmp_path / "teacher", tmp_path / "teacher")[-1] == "teacher"
