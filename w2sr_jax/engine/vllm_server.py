"""vLLM behind its OpenAI-compatible server: one that is started here, or some that run already, asked in parallel.

Prompts go as token ids and come back as token ids (vLLM's `return_token_ids`), so no tokenizer of a server plays a
part. New weights need vLLM's development endpoints and our worker extension: COMMAND starts such a server.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from typing import Any

from absl import logging

from w2sr_jax.core.errors import UsageError, W2SRError
from w2sr_jax.engine.child import Child
from w2sr_jax.engine.vllm_backend import Answer, EngineDied, OnAnswer, Request
from w2sr_jax.engine.vllm_offline import EXTENSION, environment, explain

COMMAND = f"VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --worker-extension-cls {EXTENSION} ..."
CONNECT_S = 10.0  # for the short questions: health, models, version
POLL_S = 0.5
SAY_S = 60.0  # a server's start is told about so often
GONE = (OSError, http.client.HTTPException)  # of the first are a refused or broken connection, a timeout, a lost route
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # servers are near; a proxy is not asked


class HttpError(W2SRError):
    """A server answered with an error of its own."""

    def __init__(self, url: str, status: int, reason: str):
        super().__init__(f"{url}: HTTP {status}: {reason}")
        self.status = status


class Servers:
    """See `vllm_backend.Backend`.

    Args:
        urls: of running servers, which all serve the same model.
        names: what the model may be called there.
        slots: requests that each server is given together.
        timeout_s: longest wait for one answer.
        child: the server's process when it was started here; closed with this.

    Raises:
        W2SRError: none can be reached, or one serves another model.
    """

    def __init__(
        self,
        urls: Sequence[str],
        names: Sequence[str],
        slots: int,
        timeout_s: float,
        *,
        child: Child | None = None,
    ):
        self._slots, self._timeout_s, self._child = slots, timeout_s, child
        self._served: dict[str, str] = {}  # url -> the model's name there
        lengths, about, silent, devices = [], dict[str, Any](), list[str](), 0
        for url in (url.rstrip("/") for url in urls):
            try:
                self._served[url], length = _served(url, names)
                about = {"version": ask(url, "/version", timeout_s=CONNECT_S).get("version")} | _describe(url)
            except GONE as error:
                silent.append(f"{url} ({_reason(error)})")
                continue
            devices += about["devices"]
            lengths.append(length)
        if not self._served:
            raise W2SRError(
                f"vllm: no server answers at {', '.join(silent)}; start one, e.g. {COMMAND}, "
                "or leave config.decode.vllm.urls empty"
            )
        for one in silent:
            logging.warning("vllm: no server answers at %s; going on without it", one)
        self.places: Sequence[str] = list(self._served)
        self.about: dict[str, Any] = {"mode": "server", "servers": len(self._served)}
        self.about |= {"max_model_len": min(lengths)} | about | {"devices": devices}

    def run(
        self, requests: Sequence[Request], params: dict[str, Any], on_answer: OnAnswer, place: str | None = None
    ) -> None:
        """See `vllm_backend.Backend.run`. A server that is lost leaves its share to the others."""
        waiting, done = deque(requests), queue.SimpleQueue[Answer | Exception | None]()
        lost, silent, reason = list[Request](), set[str](), ""

        def work(url: str) -> None:
            try:
                while url not in silent and waiting:
                    request = waiting.popleft()
                    try:
                        done.put(self._ask(url, request, params))
                    except EngineDied as death:
                        lost.append(request)
                        silent.add(url)
                        done.put(death)
            except IndexError:  # another thread took the last one
                pass
            except Exception as error:
                done.put(error)
            finally:
                done.put(None)

        urls = self.places if place is None else [place]
        working = [url for url in urls for _ in range(min(self._slots, len(requests)))]
        try:
            for url in working:  # daemons: nobody waits for a server's answer once this is left
                threading.Thread(target=work, args=(url,), daemon=True).start()
            ended = 0
            while ended < len(working):
                match done.get():
                    case None:
                        ended += 1
                    case EngineDied() as death:
                        reason = str(death)
                    case Exception() as error:
                        raise error
                    case answer:
                        on_answer(answer)
        finally:
            waiting.clear()
        if lost:
            if self._child is not None and not self._child.is_alive:
                reason = str(self._child.death())
            raise EngineDied(reason, [request.key for request in lost])

    def update_weights(self, directory: str) -> None:
        """See `vllm_backend.Backend.update_weights`; every server has to see the directory under this name."""
        for url in self._served:
            try:
                ask(url, "/collective_rpc", {"method": "load_directory", "args": [directory]}, self._timeout_s)
                fresh = ask(url, "/reset_prefix_cache", {}, self._timeout_s)["success"]
            except GONE as error:
                raise W2SRError(f"{url}: lost while it took new weights: {_reason(error)}") from None
            except HttpError as error:
                hint = f"; start the server so that it can: {COMMAND}" if error.status in (404, 405) else ""
                raise W2SRError(f"{error}: it did not take new weights{hint}") from None
            if not fresh:
                raise W2SRError(f"{url}: the prefix cache still holds keys and values of the old weights")

    def close(self) -> None:
        if self._child is not None:
            self._child.close()

    def _ask(self, url: str, request: Request, params: dict[str, Any]) -> Answer:
        body = {
            "model": self._served[url],
            "prompt": request.prompt,
            "seed": request.seed,
            "max_tokens": request.max_tokens,
            "ignore_eos": True,  # stop_token_ids alone decide
            "add_special_tokens": False,
            "skip_special_tokens": False,
            "return_token_ids": True,
        }
        try:
            (choice,) = ask(url, "/v1/completions", body | params, self._timeout_s)["choices"]
        except GONE as error:
            raise EngineDied(f"{url}: lost: {_reason(error)}") from None
        except HttpError as error:
            if error.status >= 500:
                raise EngineDied(str(error)) from None
            raise
        if choice.get("token_ids") is None:
            raise W2SRError(f"{url}: returns no token ids; it must be a vLLM server (0.11 or later)")
        if choice["finish_reason"] not in ("stop", "length"):
            raise EngineDied(f"{url}: a request ended as {choice['finish_reason']}")
        logprobs = choice["logprobs"] and choice["logprobs"]["token_logprobs"]
        return Answer(request.key, choice["token_ids"], logprobs, choice["finish_reason"] == "stop")


def start_server(arguments: dict[str, Any], names: Sequence[str], timeout_s: float) -> Servers:
    """A server of our own on a free port of this machine, which ends when this process does.

    Args:
        arguments: of vLLM's engine; underscores become the dashes of its command line.

    Raises:
        W2SRError: it did not come up, with its own last error.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "w2sr_jax.engine.tether", sys.executable, "-P"]
    command += ["-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        command += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    child = Child(command, "vllm server", environment() | {"VLLM_SERVER_DEV_MODE": "1"})
    url, began, said = f"http://127.0.0.1:{port}", time.monotonic(), 0.0
    try:
        while True:
            if not child.is_alive:
                raise child.death()
            with contextlib.suppress(*GONE, HttpError):
                ask(url, "/health", timeout_s=CONNECT_S)
                break
            if (waited := time.monotonic() - began) - said > SAY_S:
                said = waited
                logging.info("the vLLM server is still starting after %d s", waited)
            time.sleep(POLL_S)
        return Servers([url], names, arguments["max_num_seqs"], timeout_s, child=child)
    except W2SRError as error:
        child.close()
        raise W2SRError(explain(str(error))) from None
    except BaseException:
        child.close()
        raise


def ask(url: str, path: str, body: dict[str, Any] | None = None, timeout_s: float | None = None) -> dict[str, Any]:
    """GET, or POST where there is a body; VLLM_API_KEY is sent along when it is set.

    Raises:
        HttpError: the server's own error, in one line.
        ConnectionError, TimeoutError, HTTPException, URLError: it cannot be reached, or went away.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"config.decode.vllm.urls: expected http://HOST:PORT, got {url!r}")
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with DIRECT.open(urllib.request.Request(url + path, data, headers), timeout=timeout_s) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        with error:
            raise HttpError(url, error.code, _message(error.read())) from None
    try:
        answer = json.loads(content) if content else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise W2SRError(f"{url}{path}: is no vLLM server: {content[:80].decode(errors='replace')!r}")
    return answer


def _served(url: str, names: Sequence[str]) -> tuple[str, int]:
    """(name, longest prompt and completion) of the served model that has one of `names`."""
    try:
        models = ask(url, "/v1/models", timeout_s=CONNECT_S)["data"]
    except (HttpError, KeyError) as error:
        raise W2SRError(f"{url}: is no vLLM server: {error}") from None
    for model in models:
        if {model["id"], model.get("root")} & set(names):
            return model["id"], model["max_model_len"]
    found = ", ".join(f"{model['id']} ({model.get('root')})" for model in models)
    raise W2SRError(
        f"{url}: serves {found}, not {names[0]}; start it with that model, or say that it is the same one "
        "under another name: --config.decode.vllm.served_model=NAME"
    )


def _describe(url: str) -> dict[str, Any]:
    """What a server with our extension says of itself; one without it counts as one device that nobody knows."""
    try:
        workers = ask(url, "/collective_rpc", {"method": "describe_worker"}, CONNECT_S)["results"]
    except W2SRError:
        return {"device_kind": "unknown", "batch_invariant": None, "devices": 1}
    return workers[0] | {"devices": len(workers)}


def _message(content: bytes) -> str:
    """The error of vLLM's JSON, or the text itself, as one line."""
    text = content.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    return " ".join(text.split())[:300]


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error or type(error).__name__)
