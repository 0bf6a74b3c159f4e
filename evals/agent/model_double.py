"""What answers in a model's place? An OpenAI-compatible endpoint that is told what to say.

Used by `evals.agent.hostile` and by the tests.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drip:
    """A reply that never ends: one byte every `every_s`, in the headers or in the body."""

    every_s: float
    in_headers: bool = False


def proposals(*policies: str) -> str:
    """A well-formed reply that proposes `policies` in this order."""
    items = [{"policy": p, "confidence": 0.5, "reason": f"try {p}"} for p in policies]
    return json.dumps({"proposals": items})


def completion(text: str, finish_reason: str = "stop") -> Body:
    """A chat completion as vLLM writes it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "c-1", "object": "chat.completion", "created": 1, "model": "small",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 60, "total_tokens": 460},
    }  # fmt: skip


class Model:
    """`answers` are served in turn (the last one for good); `asked` are the requests' bodies.

    An answer is a dict (JSON), bytes (as they are), an int (HTTP status), a `Drip`, `None`
    (no answer until the end), or a function from the request's body to one of these.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Body] = []
        self.released = threading.Event()
        self.url = ""

    def next_answer(self) -> Any:
        """What the request noted last gets."""
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return answer(self.asked[-1]) if callable(answer) else answer


@contextmanager
def serving(*answers: Any, port: int = 0) -> Iterator[Model]:
    """Serve `answers` at `Model.url` until the block ends; port 0 is any free one.

    Raises:
        OSError: the port is taken.
    """
    model = Model(*answers)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def drip(self, drip: Drip) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: " * drip.in_headers)
            self.wfile.write(b"" if drip.in_headers else b"Content-Length: 100000\r\n\r\n")
            while not model.released.wait(drip.every_s):
                self.wfile.write(b"x")

        def do_GET(self) -> None:
            card = {"id": "small", "object": "model", "created": 1, "owned_by": "us"}
            self.send(200, json.dumps({"object": "list", "data": [card]}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            model.asked.append(json.loads(body))
            answer = model.next_answer()
            try:
                if answer is None:
                    model.released.wait(30)
                elif isinstance(answer, Drip):
                    self.drip(answer)
                elif isinstance(answer, int):
                    self.send(answer, b'{"error": {"message": "no"}}')
                else:
                    written = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                    self.send(200, written)
            except ConnectionError:  # the caller has hung up
                pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield model
    finally:
        model.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
