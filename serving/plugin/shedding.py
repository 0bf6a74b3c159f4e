"""How is a request refused before it reaches the engine? HTTP 503 with Retry-After.

vLLM loads the class with `--middleware serving.plugin.shedding.SheddingMiddleware`, which
`hmas serve --sheddable` adds inside the gateway's, so that believed headers count. While
nothing is to be refused, requests are passed on unread.
"""

import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from serving.contracts import Arrival
from serving.perception.attributes import slo_of, tenant_of
from serving.plugin.bodies import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    before,
    place_of,
    read_body,
    settings_of,
    whole,
)
from serving.plugin.shedding_gate import SheddingGate
from serving.settings import EngineSettings

logger = logging.getLogger("vllm.hmas")

SERVICE_UNAVAILABLE = 503
# Nobody has tokenised a refused request: prompts come to about so many bytes per token.
_BYTES_PER_TOKEN = 4


class SheddingMiddleware:
    """Pure ASGI middleware: asks the server's gate about requests of sheddable classes."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._settings: EngineSettings | None = None
        self._failed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection. What cannot be judged is vLLM's to answer."""
        place = place_of(scope)
        gate = getattr(getattr(scope.get("app"), "state", None), "hmas_shedding_gate", None)
        if place is None or not isinstance(gate, SheddingGate) or gate.share <= 0.0:
            await self._app(scope, receive, send)
            return
        body, last = await read_body(receive)
        if last is None:
            if (refused := self._judge(gate, scope, body, place)) is not None:
                await _answer(send, refused)
                return
            last = whole(body)
        await self._app(scope, before(last, receive), send)

    def _judge(
        self, gate: SheddingGate, scope: Scope, body: bytes, place: Sequence[str]
    ) -> tuple[Arrival, int] | None:
        try:
            if self._settings is None:
                self._settings = settings_of(scope)
            settings, message = self._settings, json.loads(body)
            extra = _extra_arguments(message, place)
            tenant = tenant_of(extra, None, settings)
            slo_class, slo = slo_of(extra, settings, tenant)
            if not gate.refuses(slo_class, settings.contract.sheddable):
                return None
            refused = Arrival(
                0, _request_id(scope), time.time(), tenant, slo_class,
                slo, max(1, len(body) // _BYTES_PER_TOKEN), _max_tokens(message),
            )  # fmt: skip
            gate.note(refused)
            return refused, settings.retry_after_s
        except Exception as error:  # vLLM answers what we cannot read
            if not self._failed and not isinstance(error, ValueError):
                logger.exception("H-MAS sheds nothing of what it cannot judge (said once)")
            self._failed |= not isinstance(error, ValueError)
            return None


def _extra_arguments(message: Any, place: Sequence[str]) -> Mapping[str, Any]:
    for key in place:
        message = message.get(key) if isinstance(message, dict) else None
    return message if isinstance(message, dict) else {}


def _max_tokens(message: Any) -> int:
    for key in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = message.get(key) if isinstance(message, dict) else None
        if isinstance(value, int) and value > 0:
            return value
    return 1


def _request_id(scope: Scope) -> str:
    given = [v for name, v in scope["headers"] if name.lower() == b"x-request-id"]
    return "refused-" + (given[-1].decode("latin-1")[:64] if given else secrets.token_hex(8))


async def _answer(send: Send, refused: tuple[Arrival, int]) -> None:
    """Answer in the form of vLLM's errors."""
    request, retry_after_s = refused
    error = {
        "message": f"overloaded: requests of SLO class {request.slo_class!r} are being refused; "
        f"try again in {retry_after_s} s",
        "type": "ServiceUnavailableError",
        "param": None,
        "code": SERVICE_UNAVAILABLE,
    }
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(retry_after_s).encode()),
        (b"x-request-id", request.request_id.encode("latin-1")),
    ]
    start: Message = {"type": "http.response.start", "status": SERVICE_UNAVAILABLE}
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
