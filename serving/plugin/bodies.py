"""How does a middleware look at a request before vLLM does? ASGI plumbing.

Used by the gateway's middleware and by the one that sheds.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serving.in_force import settings_in_force
from serving.settings import EngineSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_XARGS = ("vllm_xargs",)
# Routes that serve a model, and where their bodies carry extra arguments.
_PLACES = {
    "/v1/completions": _XARGS,
    "/v1/chat/completions": _XARGS,
    "/v1/responses": _XARGS,
    "/v1/messages": _XARGS,
    "/invocations": _XARGS,
    "/inference/v1/generate": ("sampling_params", "extra_args"),
}


def settings_of(scope: Scope) -> EngineSettings:
    """The engine's settings, as vLLM's API server has them.

    Raises:
        ContractError: they do not fit, or are not those that were meant.
    """
    state = getattr(scope.get("app"), "state", None)
    return settings_in_force(getattr(getattr(state, "args", None), "additional_config", None))


def place_of(scope: Scope) -> tuple[str, ...] | None:
    """Keys that lead to the extra arguments in the body of a model's request; None for others."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    return _PLACES.get(scope["path"].removeprefix(scope.get("root_path", "")))


async def read_body(receive: Receive) -> tuple[bytes, Message | None]:
    """The whole body, which vLLM's routes read whole too; or the event that cut it short."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"", message
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts), None


def whole(body: bytes) -> Message:
    """The event that carries a whole body."""
    return {"type": "http.request", "body": body, "more_body": False}


def before(message: Message, receive: Receive) -> Receive:
    """`receive` that first gives `message`."""
    pending = [message]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
