"""How is a model asked without waiting, or reading, for ever? Called by the policy agent.

httpx's timeout is per read, so an endpoint that sends a byte now and then would hold a
caller for as long as it likes: each call here runs in a thread of its own, which is left
behind when its time is up, and a body ends where it is longer than any reply should be.
"""

import contextlib
import math
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Self, TypeVar

import httpx
import openai
from pydantic import BaseModel, Field, ValidationError, model_validator

from serving.perception.attributes import sign_tenant

MAX_BODY_BYTES = 256 * 1024  # a reply of 200 tokens takes one or two thousand
GRACE_S = 1.0  # beyond the timeout: the client's own timeout speaks first
MAX_RAW_CHARS = 8000  # of a reply that are kept
_TOO_LONG = f"the reply is longer than {MAX_BODY_BYTES} bytes"

T = TypeVar("T")


class ModelFault(Exception):
    """Nothing to read came back.

    Attributes:
        code: one of the fault codes of `policy_agent`.
        raw: what came instead, as far as it is worth keeping.
        billed: the endpoint may have worked on the request all the same.
    """

    def __init__(self, code: str, detail: str, raw: str = "", *, billed: bool = False) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.raw, self.billed = code, raw, billed


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply. Tokens are as the endpoint counted them; None where it did not.

    Attributes:
        model: who says that it replied; may differ from who was asked.
        logprob: natural logarithm of the whole reply's probability; None where it was not told.
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str = ""
    logprob: float | None = None


class OneAtATime:
    """Calls that may be left behind, at most one at any time."""

    def __init__(self) -> None:
        self._last: Future[Any] | None = None
        self._closed = False

    def run(self, call: Callable[[], T], limit_s: float) -> T:
        """What `call` returns or raises.

        Raises:
            ModelFault: it takes longer than `limit_s`, one left behind still runs, or
                `close` was called, before or meanwhile.
        """
        if self._last is not None and not self._last.done():
            raise ModelFault("model_timeout", "the reply given up before is still coming in")
        future: Future[T] = Future()
        self._last = future

        if self._closed:  # asked after `_last` is set, which `close` reads after it says so
            raise _closing()

        def work() -> None:
            with contextlib.suppress(InvalidStateError):  # `close` has answered in its place
                try:
                    future.set_result(call())
                except InvalidStateError:
                    raise
                except BaseException as error:  # noqa: BLE001  raised again by `result`
                    future.set_exception(error)

        threading.Thread(target=work, name="hmas-model", daemon=True).start()
        try:
            return future.result(limit_s)
        except TimeoutError:
            if future.done():
                raise
            detail = f"no complete reply within {limit_s:g} s"
            raise ModelFault("model_timeout", detail, billed=True) from None

    def close(self) -> None:
        """End the wait of whoever waits for a reply, from another thread; no call comes after."""
        self._closed = True
        if self._last is not None:
            with contextlib.suppress(InvalidStateError):  # it has come already
                self._last.set_exception(_closing())


def _closing() -> ModelFault:
    return ModelFault("model_unreachable", "the controller closes")


def _of_closed(client: openai.OpenAI, error: RuntimeError) -> Exception:
    """What a call on a client that another thread closed came to; httpx has no error for it."""
    return _closing() if client.is_closed() else error


def model_client(base_url: str, api_key: str, timeout_s: float) -> openai.OpenAI:
    """A client that reads no more than `MAX_BODY_BYTES` of any answer and never retries."""
    return openai.OpenAI(
        base_url=base_url,
        api_key=api_key,
        timeout=timeout_s,
        max_retries=0,
        # By name: some versions of openai bring their own httpx, with streams of its own.
        http_client=_Cancellable(event_hooks={"response": [_bound]}, follow_redirects=True),
    )


def ask(client: openai.OpenAI, request: dict[str, Any], timeout_s: float) -> Answer:
    """One chat completion.

    Raises:
        ModelFault: whatever else came of it.
    """
    asked = client.chat.completions.with_raw_response
    return _read(_body(client, partial(asked.create, **request), timeout_s))


def complete(client: openai.OpenAI, request: dict[str, Any], timeout_s: float) -> Answer:
    """One completion of a prompt.

    Raises:
        ModelFault: whatever else came of it.
    """
    asked = client.completions.with_raw_response
    return _read(_body(client, partial(asked.create, **request), timeout_s))


def _body(client: openai.OpenAI, call: Callable[..., Any], timeout_s: float) -> bytes:
    try:
        response = call(timeout=timeout_s)
    except openai.APITimeoutError as error:
        detail = f"no reply within {timeout_s:g} s"
        raise ModelFault("model_timeout", detail, billed=True) from error
    except openai.APIStatusError as error:
        detail = f"HTTP {error.status_code}: {error.message[:200]}"
        raise ModelFault("model_unreachable", detail) from error
    except (openai.APIConnectionError, _ReplyTooLongError) as error:
        if isinstance(error, _ReplyTooLongError) or isinstance(error.__cause__, _ReplyTooLongError):
            raise ModelFault("reply_invalid", _TOO_LONG, billed=True) from error
        raise ModelFault("model_unreachable", f"{client.base_url}: {error}") from error
    except RuntimeError as error:
        raise _of_closed(client, error) from error
    except (openai.OpenAIError, httpx.HTTPError, ValueError, TypeError) as error:
        detail = f"not a completion: {str(error)[:200]}"
        raise ModelFault("reply_invalid", detail) from error
    body: bytes = response.http_response.content
    return body


def first_model(client: openai.OpenAI, timeout_s: float) -> str:
    """The first model that the endpoint lists.

    Raises:
        ModelFault: it does not answer, or lists none.
    """
    return next(iter(listed_models(client, timeout_s)))


def listed_models(client: openai.OpenAI, timeout_s: float) -> dict[str, str]:
    """What the endpoint lists, one or more: by what each is asked, and what vLLM loaded for it.

    Raises:
        ModelFault: it does not answer, or lists none.
    """
    try:
        response = client.models.with_raw_response.list(timeout=timeout_s)
        listed = _Models.model_validate_json(response.http_response.content).data
    except openai.APITimeoutError as error:
        raise ModelFault("model_timeout", f"no list of models in {timeout_s:g} s") from error
    except openai.APIStatusError as error:
        detail = f"HTTP {error.status_code}: {error.message[:200]}"
        raise ModelFault("model_unreachable", detail) from error
    except RuntimeError as error:
        raise _of_closed(client, error) from error
    except (openai.OpenAIError, httpx.HTTPError, _ReplyTooLongError, ValueError) as error:
        detail = f"{client.base_url}: {str(error)[:200]}"
        raise ModelFault("model_unreachable", detail) from error
    if not listed:
        raise ModelFault("model_unreachable", f"{client.base_url}: the endpoint lists no model")
    return {each.id: each.root or each.id for each in listed}


class _Cancellable(httpx.Client):
    """A client whose `close` ends the calls of other threads, too.

    httpx closes sockets, which wakes nobody who reads from one; shutting it down does, and the
    endpoint learns that nobody waits for its answer.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._sockets: set[socket.socket] = set()
        self.event_hooks["request"].append(self._follow)

    def close(self) -> None:
        for each in tuple(self._sockets):
            with contextlib.suppress(OSError):  # it is closed already
                each.shutdown(socket.SHUT_RDWR)
        super().close()

    def _follow(self, request: httpx.Request) -> None:
        request.extensions["trace"] = self._note

    def _note(self, event: str, info: dict[str, Any]) -> None:
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self._sockets = {each for each in self._sockets if each.fileno() >= 0}
            self._sockets.add(info["return_value"].get_extra_info("socket"))


class _ReplyTooLongError(Exception):
    """The body went on beyond `MAX_BODY_BYTES`."""


class _BoundedStream(httpx.SyncByteStream):
    """A body that ends in an error where it gets too long."""

    def __init__(self, body: httpx.SyncByteStream) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._body:
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _ReplyTooLongError(_TOO_LONG)
            yield chunk

    def close(self) -> None:
        self._body.close()


def _bound(response: httpx.Response) -> None:
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError(f"a body that cannot be bounded: {type(response.stream).__name__}")
    response.stream = _BoundedStream(response.stream)


# What is read of an answer. Endpoints differ in the rest, `reasoning_content` among it.
class _Message(BaseModel):
    content: str | None = None


class _Token(BaseModel):
    logprob: float = Field(le=0, allow_inf_nan=False)


class _Logprobs(BaseModel):
    """Of a chat completion `content`, of a completion `token_logprobs`."""

    content: list[_Token] = []
    token_logprobs: list[Annotated[float, Field(le=0, allow_inf_nan=False)]] = []


class _Choice(BaseModel):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.message is None and self.text is None:
            raise ValueError("neither a message nor a text")
        return self


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0, le=10**7)
    completion_tokens: int = Field(ge=0, le=10**7)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None
    model: Any = None


class _Model(BaseModel):
    id: str = Field(min_length=1, max_length=300)
    root: str | None = None


class _Models(BaseModel):
    data: list[_Model]


def _read(body: bytes) -> Answer:
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        detail = f"not a completion: {key + ': ' if key else ''}{first['msg'][:200]}"
        raw = body[: 4 * MAX_RAW_CHARS].decode(errors="replace")[:MAX_RAW_CHARS]
        raise ModelFault("reply_invalid", detail, raw, billed=True) from error
    try:
        usage = _Usage.model_validate(completion.usage)
        counted: tuple[int | None, int | None] = (usage.prompt_tokens, usage.completion_tokens)
    except ValidationError:
        counted = (None, None)
    choice = completion.choices[0]
    model = completion.model[:200] if isinstance(completion.model, str) else ""
    text = (choice.message.content if choice.message else choice.text) or ""
    reason = choice.finish_reason or ""
    return Answer(text, reason, *counted, model, _logprob(choice.logprobs))


def _logprob(told: Any) -> float | None:
    try:
        known = _Logprobs.model_validate(told)
    except ValidationError:
        return None
    each = [token.logprob for token in known.content] or known.token_logprobs
    return math.fsum(each) if each else None


def own_request(tenant: str, within_s: float, token: str = "") -> dict[str, Any]:
    """What vLLM's `vllm_xargs` say of a request of the agents' own: whose it is, and its SLO.

    Signed with the server's `token` (HMAS_TOKEN where it is empty) if either is known, so that a
    server that believes no client's claim believes this one.
    """
    said: dict[str, Any] = {"tenant": tenant, "slo_e2e_ms": 1000 * within_s}
    proof = sign_tenant(tenant, token)
    return {**said, "tenant_proof": proof} if proof else said
