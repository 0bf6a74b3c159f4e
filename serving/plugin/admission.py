"""Whose is a request, and may it pass? By the contract: API keys, classes, quotas, shedding.

The plugin puts the middleware into every API server, inside the gateway's, so that believed headers
count. Where the contract asks nothing of requests and none are shed, they are passed on unread.
"""

import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from serving.contracts import SLO, Arrival
from serving.contracts.settings import EngineSettings
from serving.perception.attributes import asked_class, signed_tenant, slo_of, tenant_of
from serving.plugin.admission_gate import AdmissionGate, Size
from serving.plugin.bodies import (
    NAMED,
    App,
    Receive,
    Scope,
    Send,
    arguments_of,
    before,
    header,
    is_unjudged,
    path_of,
    place_of,
    read_body,
    set_length,
    settings_of,
    size_of,
    whole,
)
from serving.plugin.gateway_headers import Claims, rewritten

logger = logging.getLogger("vllm.hmas")

# What a server is watched and steered by, and what asks nothing of the model.
_OPEN_PATHS = ("/hmas/", "/ping")
_PROOF = "tenant_proof"
_MOST_UNKEYED_BYTES = 256 * 1024  # of a body without a key; the controller's prompts are shorter
_OPEN_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The answer to a request that may not pass; `noted` ones are told to the engine."""

    status: int
    kind: str
    message: str
    retry_after_s: int | None = None
    noted: tuple[str, SLO] | None = None


class AdmissionMiddleware:
    """Pure ASGI middleware: what the gate does not let pass is answered here.

    Args:
        app: what is inside.
        gate: of this API server.
    """

    def __init__(self, app: App, gate: AdmissionGate) -> None:
        self._app, self._gate = app, gate
        self._failed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection. A body that cannot be read is vLLM's to answer."""
        gate = self._gate
        if gate.settings is None and scope["type"] in {"http", "websocket"}:
            gate.go_by(settings_of(scope))
        settings = gate.settings
        if settings is None or (gate.is_open and not self._looks_at(scope, settings)):
            await self._app(scope, receive, send)
        elif scope["type"] in {"http", "websocket"}:
            await self._admit(scope, receive, send, settings)
        else:
            await self._app(scope, receive, send)

    async def _admit(
        self, scope: Scope, receive: Receive, send: Send, settings: EngineSettings
    ) -> None:
        """Find out whose a request is, and answer it or pass it on."""
        place, body, message = place_of(scope), b"", None
        if place is not None:
            lacks_key = self._lacks_key(scope, settings)
            body, last = await read_body(receive, _MOST_UNKEYED_BYTES if lacks_key else None)
            if last is not None:  # the client is gone
                await self._app(scope, before(last, receive), send)
                return
            # Without a key only the controller's own requests are read, which bring a proof.
            message = None if lacks_key and _PROOF.encode() not in body else _decoded(body)
        extra = arguments_of(message, place or ())
        if _PROOF in extra and NAMED not in scope and signed_tenant(extra, "own") is None:
            # Seen somewhere, and sent again: only the middleware writes such a proof.
            scope, body = _with(scope, body, Claims(None, {}, None), place or ())
            extra = {key: value for key, value in extra.items() if key != _PROOF}
        tenant, by_key = self._whose(scope, extra, _adapter(scope, message), settings)
        if tenant is None:
            await _refuse(scope, send, _NO_KEY)
        elif self._refuses_route(scope, settings):
            await _refuse(scope, send, _UNJUDGED)
        elif place is None:
            await self._app(scope, receive, send)
        elif self._gate.is_open:
            await self._app(scope, before(whole(body), receive), send)
        else:
            if by_key:
                scope, body = _with(scope, body, Claims(tenant, {}, None), place)
            size = size_of(message, body)
            refusal = await self._judge(settings, tenant, by_key, extra, size)
            if refusal is None:
                leave = self._gate.enter(tenant, size)
                try:
                    await self._app(scope, before(whole(body), receive), send)
                finally:
                    leave()
                return
            request_id = await _refuse(scope, send, refusal)
            if refusal.noted is not None:
                self._gate.note(Arrival(
                    0, request_id, time.time(), tenant, *refusal.noted, size.prompt_tokens,
                    max(1, size.max_tokens),
                ))  # fmt: skip

    def _looks_at(self, scope: Scope, settings: EngineSettings) -> bool:
        """Whether an open gate looks at a request: a gateway's proofs must not come from others."""
        unnamed = NAMED not in scope and place_of(scope) is not None
        return settings.gateway != "off" and (unnamed or is_unjudged(scope))

    def _refuses_route(self, scope: Scope, settings: EngineSettings) -> bool:
        return (self._gate.asks or settings.gateway != "off") and is_unjudged(scope)

    def _owner(self, scope: Scope) -> str | None:
        """The tenant whose API key a request brings."""
        scheme, _, bearer = header(scope, b"authorization").partition(" ")
        key = header(scope, b"x-api-key") or (bearer if scheme.lower() == "bearer" else "")
        return self._gate.owner_of(key.strip())

    def _lacks_key(self, scope: Scope, settings: EngineSettings) -> bool:
        contract = settings.contract
        asks = contract.has_keys and contract.require_keys and NAMED not in scope
        return asks and self._owner(scope) is None

    def _whose(
        self, scope: Scope, extra: Mapping[str, Any], lora: str | None, settings: EngineSettings
    ) -> tuple[str | None, bool]:
        """The tenant, None if it may not send this, and whether its API key has named it.

        The gateway's word goes before that of a key. A signature in the body, as the controller
        sends one, does not stand for a tenant that has keys: it would outlive a key.
        """
        contract = settings.contract
        if (named := scope.get(NAMED)) is not None:
            return named, False
        if contract.has_keys and (owner := self._owner(scope)) is not None:
            return owner, True
        signed = signed_tenant(extra)
        if signed is not None and signed in contract.tenants:
            return (None if contract.terms_of(signed).api_key_hashes else signed), False
        if signed is None and contract.has_keys and contract.require_keys and not _is_open(scope):
            return None, False
        return tenant_of(extra, lora, settings), False

    async def _judge(
        self, settings: EngineSettings, tenant: str, by_key: bool, extra: Mapping[str, Any],
        size: Size,
    ) -> _Refusal | None:
        """Why a request may not pass; None if it may, as the token holder's own always may.

        A fault of ours lets it pass: classes, shedding and quotas are fairness. Whose it is was
        found out before, where a fault leaves it unserved.
        """
        try:
            if not by_key and signed_tenant(extra, "own") == tenant:
                return None
            contract, gate = settings.contract, self._gate
            asked, terms = asked_class(extra, contract), contract.terms_of(tenant)
            if asked is not None and not terms.allows(asked):
                return _Refusal(
                    httpx.codes.FORBIDDEN, "PermissionDeniedError",
                    f"tenant {tenant!r} may not ask for SLO class {asked!r}; it may ask for "
                    f"{', '.join(terms.classes)}",
                )  # fmt: skip
            noted = slo_of(extra, settings, tenant)
            if gate.sheds(noted[0]):
                wait_s = settings.retry_after_s
                return _Refusal(
                    httpx.codes.SERVICE_UNAVAILABLE, "ServiceUnavailableError",
                    f"overloaded: requests of SLO class {noted[0]!r} are being refused; try again "
                    f"in {wait_s} s", wait_s, noted,
                )  # fmt: skip
            if (over := await gate.over_quota(tenant, size)) is not None:
                return _Refusal(
                    httpx.codes.TOO_MANY_REQUESTS, "RateLimitError",
                    f"tenant {tenant!r} is over its quota: {over.reason}; try again in "
                    f"{over.retry_after_s} s", over.retry_after_s, noted,
                )  # fmt: skip
        except Exception:
            if not self._failed:
                logger.exception("H-MAS lets pass what it cannot judge (said once)")
            self._failed = True
        return None


_NO_KEY = _Refusal(
    httpx.codes.UNAUTHORIZED,
    "AuthenticationError",
    "no or an unknown API key: send one as x-api-key or Authorization: Bearer",
)
_UNJUDGED = _Refusal(
    httpx.codes.FORBIDDEN,
    "PermissionDeniedError",
    "this server holds requests to a contract, and those of this route name no tenant: take "
    "/v1/chat/completions, /v1/completions, /v1/responses or /v1/messages",
)


async def _refuse(scope: Scope, send: Send, refusal: _Refusal) -> str:
    """Answer in the form of vLLM's errors; returns the id that the request is given."""
    request_id = "refused-" + (header(scope, b"x-request-id")[:64] or secrets.token_hex(8))
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.message[:120]})
        return request_id
    error = {
        "message": refusal.message, "type": refusal.kind, "param": None, "code": refusal.status,
    }  # fmt: skip
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode("latin-1")),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    if refusal is _NO_KEY:
        headers.append((b"www-authenticate", b"Bearer"))
    start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
    return request_id


def _with(scope: Scope, body: bytes, claims: Claims, place: Sequence[str]) -> tuple[Scope, bytes]:
    """Scope and body of the request with the claims written into it."""
    scope, body = {**scope}, rewritten(body, claims, place)
    set_length(scope, len(body))
    return scope, body


def _adapter(scope: Scope, message: Any) -> str | None:
    """The LoRA adapter that a request names as its model, as vLLM looks it up."""
    served = getattr(getattr(scope.get("app"), "state", None), "openai_serving_models", None)
    model = message.get("model") if isinstance(message, dict) else None
    known = isinstance(model, str) and model in getattr(served, "lora_requests", ())
    return model if known else None


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)  # as FastAPI reads it, so that both see the same
    except (ValueError, RecursionError):
        return None


def _is_open(scope: Scope) -> bool:
    return scope["type"] == "http" and (
        scope["method"] in _OPEN_METHODS or path_of(scope).startswith(_OPEN_PATHS)
    )
