"""How does a request get the tenant and the SLO that a gateway's headers name?

vLLM loads the class with `--middleware serving.plugin.gateway.GatewayMiddleware`, which
`hmas serve --gateway` adds. It reads the engine's own settings, so both sides keep one
trust rule. A request without believed headers is passed on unread.
"""

import logging

from serving.contracts import ContractError
from serving.contracts.in_force import check_tokens
from serving.contracts.settings import EngineSettings
from serving.plugin.bodies import (
    NAMED,
    App,
    Receive,
    Scope,
    Send,
    before,
    known_settings,
    place_of,
    read_body,
    set_length,
    settings_of,
    whole,
)
from serving.plugin.gateway_headers import HEADERS, believed, read_claims, rewritten

logger = logging.getLogger("vllm.hmas")

# vLLM 0.32 lets this header go before the body's `priority`, whoever sends it.
_VLLM_PRIORITY = b"x-vllm-priority"


class GatewayMiddleware:
    """Pure ASGI middleware: believed headers go into the body, and none of them further."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._settings: EngineSettings | None = None
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection. Whatever a client sends, vLLM is the one to answer."""
        if scope["type"] == "lifespan":
            await self._start(scope, receive, send)
            return
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": list(scope["headers"])}
        headers = _take(scope)
        settings = self._settings_of(scope)
        if not headers or not self._believes(headers, settings):
            await self._app(scope, receive, send)
            return
        claims = read_claims(headers, settings)
        place = place_of(scope)
        if claims is not None and place is not None:
            if claims.priority is not None:
                _drop(scope, _VLLM_PRIORITY)
            body, last = await read_body(receive)
            if last is None:
                body = rewritten(body, claims, place)
                set_length(scope, len(body))
                last = whole(body)
            receive = before(last, receive)
        if claims is not None and claims.tenant is not None:
            scope[NAMED] = claims.tenant
        await self._app(scope, receive, send)

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to start by settings that cannot work: a gateway would be ignored in silence."""
        try:
            self._settings = _read_settings(scope)
        except ContractError as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await self._app(scope, receive, send)

    def _settings_of(self, scope: Scope) -> EngineSettings:
        if (known := known_settings(scope)) is not None:
            return known
        if self._settings is None:  # a server without lifespan events
            try:
                self._settings = _read_settings(scope)
            except ContractError as error:
                logger.error("H-MAS gateway headers are ignored: %s", error)  # noqa: TRY400
                self._settings = EngineSettings()
        return self._settings

    def _believes(self, headers: dict[str, str], settings: EngineSettings) -> bool:
        if believed(headers, settings):
            return True
        if not self._warned and settings.gateway == "token":
            self._warned = True
            logger.warning(
                "ignoring %s: no or a wrong x-hmas-gateway-token (said once)", ", ".join(headers)
            )
        return False


def _read_settings(scope: Scope) -> EngineSettings:
    """The engine's settings, as vLLM's API server has them.

    Raises:
        ContractError: they do not fit, or a token is missing in the environment.
    """
    settings = settings_of(scope)
    check_tokens(settings)
    return settings


def _take(scope: Scope) -> dict[str, str]:
    """Remove our headers from the scope and return them; of equal names the last counts.

    A proxy that appends instead of replacing leaves the client's header in front.
    """
    taken = {}
    rest = []
    for name, value in scope["headers"]:
        if (known := name.lower().decode("latin-1")) in HEADERS:
            taken[known] = value.decode("utf-8", "replace").strip()
        else:
            rest.append((name, value))
    scope["headers"] = rest
    return taken


def _drop(scope: Scope, header: bytes) -> None:
    scope["headers"] = [item for item in scope["headers"] if item[0].lower() != header]
