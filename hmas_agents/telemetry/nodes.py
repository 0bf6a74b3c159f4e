"""Which node ran, and which tool? LangGraph says so itself, through its callbacks.

So nodes need no wrapping, and a new one is traced without a word. Imported by
`telemetry.otlp` alone: only a loop that traces pays for it.
"""

# ruff: noqa: ARG002, D102  the base class names the arguments, and says what each is for

from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from hmas_agents.telemetry.attributes import (
    Attributes,
    tool_attributes,
    tool_result_attributes,
)
from hmas_agents.telemetry.tracing import Span, Tracing

NODE_TAG = "graph:step:"  # on runs of nodes; runs inside a node carry other tags


class NodeSpans(BaseCallbackHandler):
    """A span per node and per tool call of one tick; LangChain logs what goes wrong here."""

    run_inline = True  # spans nest by the thread that they begin in

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._open: dict[UUID, tuple[AbstractContextManager[Span], Span]] = {}

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **more: Any) -> None:
        if any(tag.startswith(NODE_TAG) for tag in more.get("tags") or ()):
            self._begin(run_id, more.get("name") or "node", {})

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id, {}, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id, {}, error)

    def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **more: Any
    ) -> None:
        name = str((serialized or {}).get("name") or "tool")
        self._begin(run_id, f"execute_tool {name}", tool_attributes(name, more.get("tool_call_id")))

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id, tool_result_attributes(getattr(output, "content", output)), None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id, {}, error)

    def _begin(self, run_id: UUID, name: str, attributes: Attributes) -> None:
        manager = self._tracing.span(name, attributes)
        self._open[run_id] = manager, manager.__enter__()

    def _end(self, run_id: UUID, attributes: Attributes, error: BaseException | None) -> None:
        manager, span = self._open.pop(run_id, (None, None))
        if manager is None or span is None:
            return  # a run that is no node
        span.set(attributes)
        manager.__exit__(None if error is None else type(error), error, None)
