"""What answers like vLLM's server over real HTTP, by rote: the edges of the protocol are tested without vLLM."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RoteServer:
    """Repeats prompts on a port of its own; `logprob` of every token is minus the number in its weights' name."""

    def __init__(self, model: str, *, dev_mode: bool = True, stale: bool = False, dies_at: int | None = None):
        self.model, self.dev_mode, self.stale, self.dies_at = model, dev_mode, stale, dies_at
        self.asked: list[list[int]] = []
        self.weights = 0
        rote = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                self.reply(*rote.get(self.path))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if rote.dies_at is not None and len(rote.asked) >= rote.dies_at:
                    self.close_connection = True
                    self.connection.close()
                    threading.Thread(target=rote.close).start()
                    return
                self.reply(*rote.post(self.path, body))

            def reply(self, status, content):
                data = json.dumps(content).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # of the connections that this server itself cuts

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def get(self, path):
        if path == "/v1/models":
            return 200, {"data": [{"id": self.model, "root": self.model, "max_model_len": 99}]}
        return (200, {"version": "rote"}) if path == "/version" else (404, {"detail": "Not Found"})

    def post(self, path, body):
        if path == "/v1/completions":
            if 66 in body["prompt"]:
                return 400, {"error": {"message": "66 is not\nfor me"}}
            self.asked.append(body["prompt"])
            ids = [*body["prompt"], 0]
            logprobs = None if body["logprobs"] is None else {"token_logprobs": [-float(self.weights)] * len(ids)}
            choice = {"token_ids": ids, "logprobs": logprobs, "finish_reason": "stop"}
            return 200, {"choices": [choice]}
        if not self.dev_mode:
            return 404, {"detail": "Not Found"}
        if path == "/reset_prefix_cache":
            return 200, {"success": True}
        assert path == "/collective_rpc", path
        if body["method"] == "describe_worker":
            return 200, {"results": 2 * [{"device_kind": "rote", "batch_invariant": True}]}
        if not self.stale:
            self.weights = int(Path(body["args"][0]).name[1:])
        return 200, {}

    def close(self):
        self._server.shutdown()
        self._server.server_close()
