"""A server that speaks enough of the OpenAI API for a live run, in a thread of this process."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeOpenAI:
    """What it answers, and what it was asked.

    `pages` are its GET routes: text as it is, anything else as JSON. `asked` lists
    (request id, body) of each completion in order of arrival; without an id it is "".
    With `ends_answers` it does what `AnswerLength` does in vLLM.
    """

    def __init__(
        self, owner: str = "sglang", tokens_per_chunk: int = 1, ends_answers: bool = False
    ) -> None:
        self.ends_answers = ends_answers
        card = {"id": "tiny", "owned_by": owner, "max_model_len": 4096}
        self.pages: dict[str, Any] = {"/v1/models": {"data": [card]}}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.tokens_per_chunk = tokens_per_chunk
        self.status = 200
        self.url = ""

    def bodies(self, run_id: str) -> list[dict[str, Any]]:
        """Bodies of the requests of one replay, in the order of their ids."""
        mine = [(name, body) for name, body in self.asked if name.startswith(run_id)]
        return [body for _, body in sorted(mine, key=lambda each: int(each[0].rsplit("r", 1)[1]))]

    def length(self, body: dict[str, Any]) -> tuple[int, str]:
        """Tokens of an answer, and why it ends."""
        wanted = body.get("vllm_xargs", {}).get("answer_tokens") if self.ends_answers else None
        return (body["max_tokens"], "length") if wanted is None else (wanted, "stop")

    def answered(self) -> None:
        """Called after each completion."""

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of one stream."""
        (most, reason), each = self.length(body), self.tokens_per_chunk
        for done in range(each, most + each, each):
            finish = reason if done >= most else None
            yield {
                "choices": [{"text": "x", "finish_reason": finish}],
                "usage": {"completion_tokens": min(done, most)},
            }


@contextmanager
def serving(fake: FakeOpenAI) -> Iterator[FakeOpenAI]:
    """The server for the length of the block; sets its `url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # the end of a stream is the end of its connection

        def do_GET(self) -> None:
            page = fake.pages.get(self.path)
            if page is None:
                self.send_error(404)
                return
            self._send(200, page if isinstance(page, str) else json.dumps(page))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.asked.append((self.headers.get("X-Request-Id", ""), body))
            fake.answered()
            if fake.status != 200 or not body.get("stream"):
                usage = {"completion_tokens": fake.length(body)[0]}
                self._send(fake.status, json.dumps({"usage": usage}))
                return
            lines = [f"data: {json.dumps(event)}\n\n" for event in fake.events(body)]
            self._send(200, "".join([*lines, "data: [DONE]\n\n"]))

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # a burst of connections is not refused

        def handle_error(self, *args: Any) -> None:
            """A client that left before its answer is no fault of the server."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(*args)

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="fake server")
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
