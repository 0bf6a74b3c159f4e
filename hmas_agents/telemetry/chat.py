"""How long did the model take, and what did it cost? A span around each call of it.

Called by whoever asks a model, in the thread of its tick: the call itself may run in another.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from hmas_agents.telemetry.attributes import (
    chat_request_attributes,
    chat_response_attributes,
    prompt_content,
    reply_content,
)
from hmas_agents.telemetry.tracing import Span, Tracing, tracing_now


class Reply(Protocol):
    """What is read of an answer, where it has it: also `model` and `id`."""

    @property
    def text(self) -> str:
        """The answer."""

    @property
    def finish_reason(self) -> str:
        """`stop`, `length`, ..."""

    @property
    def prompt_tokens(self) -> int | None:
        """As the endpoint counted them."""

    @property
    def completion_tokens(self) -> int | None:
        """As the endpoint counted them."""


class ChatSpan:
    """The call under way; without tracing it does nothing."""

    def __init__(self, span: Span | None = None, content: bool = False) -> None:
        self._span, self._content = span, content

    def answered(self, reply: Reply) -> None:
        """The model replied."""
        if self._span is not None:
            self._span.set(chat_response_attributes(reply))
            if self._content:
                self._span.set(reply_content(reply))


_UNTRACED = nullcontext(ChatSpan())


def chat_span(request: Mapping[str, Any], base_url: str) -> AbstractContextManager[ChatSpan]:
    """A span `chat MODEL` of the tick under way; an exception inside makes it an error.

    Args:
        request: the arguments of OpenAI's `chat.completions.create`.
        base_url: the endpoint that is asked.
    """
    tracing = tracing_now()
    return _UNTRACED if tracing is None else _traced(tracing, request, base_url)


@contextmanager
def _traced(tracing: Tracing, request: Mapping[str, Any], base_url: str) -> Iterator[ChatSpan]:
    asked = chat_request_attributes(request, base_url)
    model = asked["gen_ai.request.model"]
    with tracing.span(f"chat {model}" if model else "chat", asked, client=True) as span:
        if tracing.prompt_content:
            span.set(prompt_content(request.get("messages")))
        yield ChatSpan(span, tracing.prompt_content)
