"""A local HTTP server that speaks just enough of vLLM and of the /hmas/ routes."""

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hmas_agents import cli
from serving.contracts import encode
from tests.hmas_agents.samples import snapshot


class FakeServer:
    """Routes may be changed by a test: path -> (status, body)."""

    def __init__(self, token_file):
        self.token_file = token_file
        self.url = ""
        self.clock_skew_s = 0.0
        self.policy_errors = 0
        self.rank_changes: list[dict[str, Any]] = [{}]
        self.posted = []
        self.routes = {
            "/health": (200, {}),
            "/v1/models": (200, {"data": [{"id": "smollm2"}]}),
            "/v1/chat/completions": (200, {"choices": [{"message": {"content": "ok"}}]}),
        }

    def answer(self, path, authorization):
        if path in self.routes:
            return self.routes[path]
        if path != "/hmas/snapshot":
            return 404, {"error": {"message": "Not Found"}}
        if authorization != "Bearer secret":
            return 401, {"error": {"message": "wrong token"}}
        now = snapshot(time.time() + self.clock_skew_s, policy_errors=self.policy_errors)
        ranks = [replace(now, rank=i, **more) for i, more in enumerate(self.rank_changes)]
        return 200, {"ranks": [encode(rank) for rank in ranks]}


@pytest.fixture
def server(tmp_path):
    yield from served(tmp_path)


@pytest.fixture
def second(tmp_path):
    yield from served(tmp_path)


def served(tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text("secret\n")
    fake = FakeServer(token_file)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = fake.answer(self.path, self.headers["Authorization"])
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self):
            fake.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.do_GET()

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield fake
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def hmas(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder; its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*argv):
        with pytest.raises(SystemExit) as left:
            cli.main([str(part) for part in argv])
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return run
