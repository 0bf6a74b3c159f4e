"""Who may talk to the page? Only this machine's browser, and only the page itself may write.

A page on another site can reach 127.0.0.1 through the reader's browser: by a name that it
points there (DNS rebinding; refused by the Host header), or by a form or script that posts
(refused by Origin, content type and a token that only our own page can read).
"""

import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-hmas-token"
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
        token: what the page must send back with every write.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if problem := self._problem(scope["method"], Headers(scope=scope)):
            status, text = problem
            refusal = JSONResponse({"error": text}, status)
            await refusal(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _problem(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Status and text of a refusal, or None."""
        host = headers.get("host", "")
        if host not in self.hosts:
            return 421, f"host {host!r} is not this page: open the address that `hmas ui` printed"
        return None if method in {"GET", "HEAD"} else self._write_problem(host, headers)

    def _write_problem(self, host: str, headers: Headers) -> tuple[int, str] | None:
        if headers.get("origin", "") != f"http://{host}":
            return 403, "refused: this write does not come from the page itself"
        if headers.get("content-type", "").split(";")[0] != "application/json":
            return 415, "refused: a write must be application/json"
        if not secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self.token.encode()):
            return 403, "refused: the page is from an earlier start of `hmas ui`; reload it"
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return 413, f"refused: a write is at most {MAX_BODY_BYTES} bytes"
        return None
