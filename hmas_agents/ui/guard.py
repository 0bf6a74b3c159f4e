"""Who may talk to the page? Only the user who started `hmas ui`; only the page itself may write.

Everybody with an account on this machine can reach 127.0.0.1. So the address that `hmas ui`
prints carries a token; who opens it gets a cookie, and nothing is answered without the cookie.
A page on another site can reach 127.0.0.1 through the reader's browser: by a name that it
points there (DNS rebinding; refused by the Host header), or by a form or script that posts
(refused by Origin and content type, and the browser keeps the cookie back).
"""

import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1_000_000
HEADERS = {
    # Trusted Types make assigning text to innerHTML an error: ledger text stays text.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware: refuses foreign requests, and sets the page's security headers.

    Attributes:
        token: what the printed address carries, and the cookie after it.
        cookie: its name; a port's own, because browsers share cookies between ports.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str, cookie: str) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token
        self.cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        connection = HTTPConnection(scope)
        problem = self._problem(scope["method"], connection)
        more = dict(HEADERS)
        if problem is None and "token" in connection.query_params:
            more["set-cookie"] = f"{self.cookie}={self.token}; HttpOnly; Path=/; SameSite=Strict"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(more)
            await send(message)

        answer = self.app if problem is None else JSONResponse({"error": problem[1]}, problem[0])
        await answer(scope, receive, send_with_headers)

    def _problem(self, method: str, connection: HTTPConnection) -> tuple[int, str] | None:
        """Status and text of a refusal, or None."""
        headers = connection.headers
        host = headers.get("host", "")
        if host not in self.hosts:
            return 421, f"host {host!r} is not this page: open the address that `hmas ui` printed"
        given = connection.query_params.get("token") or connection.cookies.get(self.cookie, "")
        if not secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            return 403, "refused: open the whole address that `hmas ui` printed when it started"
        return None if method in {"GET", "HEAD"} else self._write_problem(host, headers)

    def _write_problem(self, host: str, headers: Headers) -> tuple[int, str] | None:
        if headers.get("origin", "") != f"http://{host}":
            return 403, "refused: this write does not come from the page itself"
        if headers.get("content-type", "").split(";")[0] != "application/json":
            return 415, "refused: a write must be application/json"
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return 413, f"refused: a write is at most {MAX_BODY_BYTES} bytes"
        return None
