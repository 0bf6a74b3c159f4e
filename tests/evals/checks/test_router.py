"""Does the router of checks send in turns, pass streams on as they come, and send nothing twice?"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from evals.checks.router import router
from tests.command_line import free_port


class Backend:
    """A server that says its name, in as many pieces as it is asked for."""

    def __init__(self, name: str) -> None:
        self.name, self.got, self.more = name, list[bytes](), threading.Event()

    async def answer(self, request: Request) -> Response:
        self.got.append(await request.body())
        if request.headers.get("x-stream"):
            return StreamingResponse(self.pieces(), headers={"x-of": self.name})
        return JSONResponse({"name": self.name, "path": request.url.path}, 201)

    async def pieces(self) -> AsyncIterator[bytes]:
        yield b"first"
        while not self.more.is_set():
            await asyncio.sleep(0.01)
        yield b"second"


@contextmanager
def listening(backend: Backend) -> Iterator[str]:
    port = free_port()
    route = Route("/{path:path}", backend.answer, methods=["GET", "POST"])
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=[route]), port=port, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def up(url: str) -> str:
    while True:
        try:
            httpx.get(url)
            return url
        except httpx.ConnectError:
            time.sleep(0.02)


@pytest.fixture
def two() -> Iterator[tuple[str, list[Backend]]]:
    backends = [Backend("a"), Backend("b")]
    with ExitStack() as stack:
        urls = [up(stack.enter_context(listening(one))) for one in backends]
        port = free_port()
        stack.enter_context(router([urls[0], f"http://127.0.0.1:{free_port()}", urls[1]], port))
        up(f"http://127.0.0.1:{port}")
        for one in backends:
            one.got.clear()
        yield f"http://127.0.0.1:{port}", backends


def test_requests_go_in_turns_and_pass_over_a_server_that_takes_none(two):
    url, backends = two
    answers = [httpx.post(f"{url}/v1/completions", content=b"{}") for _ in range(6)]
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["path"] for answer in answers} == {"/v1/completions"}
    assert {answer.json()["name"] for answer in answers} == {"a", "b"}
    assert sum(len(one.got) for one in backends) == 6, "nothing is sent twice"


def test_a_stream_is_passed_on_as_it_comes(two):
    url, backends = two
    with httpx.stream("POST", f"{url}/v1/completions", headers={"x-stream": "1"}) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first", "before the second is there"
        for one in backends:
            one.more.set()
        assert next(pieces) == b"second"
        assert answer.headers["x-of"] in {"a", "b"}


def test_without_any_server_it_says_so():
    port = free_port()
    with router([f"http://127.0.0.1:{free_port()}"], port):
        up(f"http://127.0.0.1:{port}")
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models")
    assert (answer.status_code, answer.json()) == (502, {"error": {"message": "no server"}})
