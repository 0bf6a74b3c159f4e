"""How does a middleware look at a request before vLLM does? ASGI plumbing.

Used by the gateway's middleware and by the one that admits.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from serving.contracts.in_force import settings_in_force
from serving.contracts.settings import EngineSettings
from serving.plugin.admission_gate import AdmissionGate, Size

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Nobody has tokenised the request yet: prompts come to about so many bytes per token.
_BYTES_PER_TOKEN = 4
_LONGEST = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_WHOLE = TypeAdapter(int)
_MOST = 10**6  # of a number that a client names
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
# Routes that make the engine work and carry no tenant: forms, websockets, and bodies in which vLLM
# has no place for extra arguments. A test looks for new ones in vLLM.
_UNJUDGED = frozenset((
    "/v1/chat/completions/batch", "/cohere/v2/chat", "/v1/systemone", "/generative_scoring",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/realtime",
))  # fmt: skip


# What the gateway has named, for the middleware inside its own: clients cannot write it.
NAMED = "hmas_tenant"


def settings_of(scope: Scope) -> EngineSettings:
    """The engine's settings, with the contract in force as far as this API server knows.

    Raises:
        ContractError: they do not fit, or are not those that were meant.
    """
    if (known := known_settings(scope)) is not None:
        return known
    args = getattr(getattr(scope.get("app"), "state", None), "args", None)
    return settings_in_force(getattr(args, "additional_config", None))


def known_settings(scope: Scope) -> EngineSettings | None:
    """Those that the gate of this API server goes by; None if there is none yet."""
    gate = getattr(getattr(scope.get("app"), "state", None), "hmas_gate", None)
    return gate.settings if isinstance(gate, AdmissionGate) else None


def place_of(scope: Scope) -> tuple[str, ...] | None:
    """Keys that lead to the extra arguments in the body of a model's request; None for others."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    return _PLACES.get(path_of(scope))


def is_unjudged(scope: Scope) -> bool:
    """Whether this route makes the engine work for a tenant that nobody could name."""
    return scope["type"] in {"http", "websocket"} and path_of(scope) in _UNJUDGED


def path_of(scope: Scope) -> str:
    """The route's path, below the server's own."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def read_body(
    receive: Receive, most_bytes: int | None = None
) -> tuple[bytes, Message | None]:
    """The whole body, which vLLM's routes read whole too; or the event that cut it short.

    Of one over `most_bytes` nothing, and the rest of it is left unread.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"", message
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if most_bytes is not None and size > most_bytes:
            return b"", None
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


def set_length(scope: Scope, length: int) -> None:
    """The content-length of a body that was rewritten."""
    scope["headers"] = [
        (name, str(length).encode() if name.lower() == b"content-length" else value)
        for name, value in scope["headers"]
    ]


def header(scope: Scope, wanted: bytes) -> str:
    """The last header of that name; empty if there is none."""
    found = [value for name, value in scope["headers"] if name.lower() == wanted]
    return found[-1].decode("latin-1").strip() if found else ""


def arguments_of(message: Any, place: Sequence[str]) -> Mapping[str, Any]:
    """The extra arguments in a decoded body; empty where there are none."""
    for key in place:
        message = message.get(key) if isinstance(message, dict) else None
    return message if isinstance(message, dict) else {}


def size_of(message: Any, body: bytes) -> Size:
    """What a request asks of the engine, as far as its body says.

    An answer without a limit counts as nothing, and of a prompt in text the tokens are estimated.
    """
    if not isinstance(message, dict):
        return Size(1, 1, 0)
    inner = message.get("sampling_params")
    said = {**message, **inner} if isinstance(inner, dict) else message
    prompt = said.get("token_ids") or said.get("prompt")
    prompts, tokens = 1, max(1, len(body) // _BYTES_PER_TOKEN)
    if isinstance(prompt, list) and prompt:
        if isinstance(prompt[0], int):
            tokens = len(prompt)
        else:
            prompts = len(prompt)
            if all(isinstance(one, list) for one in prompt):
                tokens = sum(map(len, prompt))
    longest = next((value for name in _LONGEST if (value := _whole(said.get(name))) > 0), 0)
    return Size(prompts * max(1, _whole(said.get("n"))), tokens, longest)


def _whole(value: object) -> int:
    """A number as vLLM reads it (`"50"` and `50.0` are 50); 0 if it is none."""
    try:
        return min(_WHOLE.validate_python(value), _MOST)
    except ValidationError:
        return 0
