"""A round-robin router before several servers, for checks and live runs. Run by `python -m`.

A stand-in for what an operator has there: it knows nothing of load, sends nothing twice that may
have begun, and passes a stream on as it comes.
"""

import argparse
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

_HOP = {"host", "content-length", "transfer-encoding", "connection"}


def router_app(servers: Sequence[str]) -> Starlette:
    """Each request goes to the next server; one that takes no connection is passed over.

    Args:
        servers: URLs, without a path.
    """
    turns = count()
    # Each request on a connection of its own, as a load balancer of connections sees it.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    client = httpx.AsyncClient(timeout=None, limits=limits)

    async def send(request: Request) -> Response:
        body, turn = await request.body(), next(turns)
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOP]
        for step in range(len(servers)):
            url = servers[(turn + step) % len(servers)] + request.url.path
            asked = client.build_request(request.method, url, content=body, headers=headers)
            try:
                answer = await client.send(asked, stream=True)
            except httpx.ConnectError:
                continue
            except httpx.HTTPError:
                break  # it may have begun: not sent twice
            kept = {k: v for k, v in answer.headers.items() if k not in _HOP}
            end = BackgroundTask(answer.aclose)
            return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=end)
        return JSONResponse({"error": {"message": "no server"}}, 502)

    @asynccontextmanager
    async def closing(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    return Starlette(
        routes=[Route("/{path:path}", send, methods=["GET", "POST"])], lifespan=closing
    )


@contextmanager
def router(servers: Sequence[str], port: int) -> Iterator[None]:
    """A router on 127.0.0.1 until the block ends."""
    server = uvicorn.Server(_settings(servers, port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _settings(servers: Sequence[str], port: int) -> uvicorn.Config:
    return uvicorn.Config(router_app(servers), port=port, log_level="warning")


def main() -> None:
    """Route until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("servers", nargs="+", metavar="URL")
    given = parser.parse_args()
    uvicorn.Server(_settings(given.servers, given.port)).run()


if __name__ == "__main__":
    main()
