"""How do spans reach a collector? OTLP over HTTP, from a thread and a queue of their own.

The only module that imports OpenTelemetry (extra `otel`); imported when an endpoint is
configured. A collector that is slow or away costs spans, never a tick.
"""

# ruff: noqa: ARG002, D102  LangChain's base class names the arguments, and says what each is for

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from hmas_agents.telemetry.attributes import (
    Attributes,
    error_type,
    tool_attributes,
    tool_result_attributes,
)
from hmas_agents.telemetry.tracing import Span, Tracing

logger = logging.getLogger(__name__)

SERVICE = "hmas-controller"
EXPORT_TIMEOUT_S = 2.0  # of one attempt to send, retries included
QUEUE_SPANS = 1024  # what waits for a collector that is away; a tick has about ten
BATCH_SPANS = 512
SEND_EVERY_MS = 5000.0
MAX_ATTRIBUTE_CHARACTERS = 16_384  # a prompt, but not whatever an endpoint sends
NODE_TAG = "graph:step:"  # on runs of nodes; runs inside a node carry other tags
REMEMBERED = 256  # decisions whose outcome is awaited: windows are minutes long

# The libraries would log every failed attempt; `TellingExporter` says it once.
CHATTY = ("opentelemetry.exporter.otlp", "opentelemetry.sdk._shared_internal", "urllib3")


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


class TellingExporter(SpanExporter):
    """An exporter that never raises, and logs when deliveries begin and cease to fail."""

    def __init__(self, inner: SpanExporter, where: str) -> None:
        self._inner, self._where = inner, where
        self._failing = self._closing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; at the end a collector known to be away is not waited for again."""
        if self._closing and self._failing:
            return SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001  whatever it is, decisions go on
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            logger.warning(
                "spans do not reach %s: they are lost, decisions go on as before", self._where
            )
        if self._failing and not failed:
            logger.warning("spans reach %s again", self._where)
        self._failing = failed
        return result

    def closing(self) -> None:
        """No more than one last failure from here on."""
        self._closing = True

    def shutdown(self) -> None:
        """End the connections."""
        self._inner.shutdown()


class _LiveSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.context = span.get_span_context()

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes({k: v for k, v in attributes.items() if v is not None})


class OTLPTracing:
    """`tracing.Tracing` on OpenTelemetry's SDK, with a provider of its own.

    Args:
        processor: takes the spans that end.
        instance: `service.instance.id`; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
            override what is said of the service.
    """

    def __init__(
        self,
        processor: SpanProcessor,
        instance: str,
        *,
        prompt_content: bool = False,
        exporter: TellingExporter | None = None,
    ) -> None:
        about = {
            "service.name": SERVICE,
            "service.version": _version(),
            "service.instance.id": instance,
        }
        resource = Resource.create().merge(Resource(about)).merge(OTELResourceDetector().detect())
        self.prompt_content = prompt_content
        self._exporter = exporter
        limits = SpanLimits(max_span_attribute_length=MAX_ATTRIBUTE_CHARACTERS)
        self._provider = TracerProvider(
            resource=resource, span_limits=limits, shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("hmas", _version())
        self._remembered: OrderedDict[float, trace.SpanContext] = OrderedDict()

    @contextmanager
    def span(self, name: str, attributes: Attributes, *, client: bool = False) -> Iterator[Span]:
        """See `Tracing`. Of an error only its type is told: messages quote what they like."""
        with self._tracer.start_as_current_span(
            name,
            kind=trace.SpanKind.CLIENT if client else trace.SpanKind.INTERNAL,
            record_exception=False,
            set_status_on_exception=False,
        ) as begun:
            live = _LiveSpan(begun)
            live.set(attributes)
            try:
                yield live
            except BaseException as error:
                live.set({"error.type": error_type(error)})
                begun.set_status(trace.StatusCode.ERROR)
                raise

    def callbacks(self) -> list[Any]:
        """See `Tracing`."""
        return [NodeSpans(self)]

    def remember(self, key: float, span: Span) -> None:
        """See `Tracing`."""
        if isinstance(span, _LiveSpan):
            self._remembered[key] = span.context
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def span_about(self, key: float, name: str, attributes: Attributes) -> None:
        """See `Tracing`."""
        context = self._remembered.pop(key, None)
        links = [] if context is None else [trace.Link(context)]
        begun = self._tracer.start_span(name, links=links)
        _LiveSpan(begun).set(attributes)
        begun.end()

    def close(self) -> None:
        """See `Tracing`."""
        if self._exporter is not None:
            self._exporter.closing()
        self._provider.shutdown()


def start_tracing(
    url: str | None, target: str, instance: str, prompt_content: bool
) -> OTLPTracing:
    """Send spans to `url`, or to where OpenTelemetry's environment variables say: `target`."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    exporter = TellingExporter(
        OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S), _place(target)
    )
    processor = BatchSpanProcessor(
        exporter,
        max_queue_size=QUEUE_SPANS,
        max_export_batch_size=BATCH_SPANS,
        schedule_delay_millis=SEND_EVERY_MS,
    )
    return OTLPTracing(processor, instance, prompt_content=prompt_content, exporter=exporter)


def _place(url: str) -> str:
    """Host and port of a URL: the rest may hold a password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the collector"


def _version() -> str:
    try:
        return version("hmas-scheduler")
    except PackageNotFoundError:
        return "unknown"
