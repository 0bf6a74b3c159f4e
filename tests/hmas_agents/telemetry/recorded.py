"""Spans kept in memory, and what tests ask of them."""

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hmas_agents.telemetry.otlp import OTLPTracing


def said(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span."""
    return dict(span.attributes or {})


class Recorded:
    """A `tracing` to hand over, and the spans that ended in it."""

    def __init__(self, prompt_content: bool = False) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = OTLPTracing(
            SimpleSpanProcessor(self._exporter), "c1", prompt_content=prompt_content
        )

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def attributes(self, name: str) -> dict[str, Any]:
        return said(self.one(name))

    def paths(self) -> set[str]:
        """Each span as the names from its root to it: `long_tick/observe`."""
        by_id = {span.context.span_id: span for span in self.spans}

        def path(span: ReadableSpan) -> str:
            parent = by_id.get(span.parent.span_id) if span.parent else None
            return f"{path(parent)}/{span.name}" if parent else span.name

        return {path(span) for span in self.spans}
