"""Where do spans begin? The seam that graphs and agents use; without an endpoint it is empty.

Nothing here imports OpenTelemetry. A loop that traces carries its `Tracing` through each
tick in a context variable, so that loops in one process (simulated ones among them) do
not see each other's. Called by `graphs` and the agents.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hmas_agents.records import DecisionRecord
from hmas_agents.telemetry.attributes import (
    Attributes,
    agent_attributes,
    decision_attributes,
    outcome_attributes,
)

TickName = Literal["short_tick", "long_tick"]


class Span(Protocol):
    """A span under way."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes; those that are None are left out."""


class Tracing(Protocol):
    """Where one loop's spans go.

    Attributes:
        prompt_content: prompts and replies may be written into spans.
    """

    prompt_content: bool

    def span(
        self, name: str, attributes: Attributes, *, client: bool = False
    ) -> AbstractContextManager[Span]:
        """A child of the span under way; an exception makes it an error and goes on."""

    def callbacks(self) -> list[Any]:
        """What makes LangGraph report its nodes and tools as spans."""

    def remember(self, key: float, span: Span) -> None:
        """Keep where a span is, for a later `span_about`."""

    def span_about(self, key: float, name: str, attributes: Attributes) -> None:
        """A span without duration that links to the one remembered under `key`, if any."""

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""


@dataclass(frozen=True, slots=True)
class _Tick:
    tracing: Tracing
    span: Span


class _NoSpan:
    def set(self, attributes: Attributes) -> None:
        """Nobody listens."""


_TICK: ContextVar[_Tick | None] = ContextVar("hmas_tick", default=None)
_NOTHING: AbstractContextManager[Span] = nullcontext(_NoSpan())


@contextmanager
def tick(
    tracing: Tracing | None, name: TickName, attributes: Attributes | None = None
) -> Iterator[Any]:
    """Trace one tick; yields what to add to the configuration of the graph's run."""
    if tracing is None:
        yield {}
        return
    with tracing.span(name, attributes or {}) as root:
        token = _TICK.set(_Tick(tracing, root))
        try:
            yield {"callbacks": tracing.callbacks()}
        finally:
            _TICK.reset(token)


def span(
    name: str, attributes: Attributes | None = None, *, client: bool = False
) -> AbstractContextManager[Span]:
    """A span below the one under way; outside a traced tick, nothing."""
    current = _TICK.get()
    if current is None:
        return _NOTHING
    return current.tracing.span(name, attributes or {}, client=client)


def invoke_agent(name: str) -> AbstractContextManager[Span]:
    """The span of an agent at work, by its name."""
    if _TICK.get() is None:
        return _NOTHING
    return span(f"invoke_agent {name}", agent_attributes(name))


def tracing_now() -> Tracing | None:
    """Where the tick under way is traced to; None outside a traced tick."""
    current = _TICK.get()
    return None if current is None else current.tracing


def note_decision(record: DecisionRecord) -> None:
    """Write a decision into its tick's span."""
    if (current := _TICK.get()) is not None:
        current.span.set(decision_attributes(record))
        current.tracing.remember(record.at_s, current.span)


def note_outcome(decided_at_s: float, predicted: float | None, realised: float, n: int) -> None:
    """Say what came of an earlier decision: `realised` attainment of `n` requests."""
    if (current := _TICK.get()) is not None:
        about = outcome_attributes(predicted, realised, n)
        current.tracing.span_about(decided_at_s, "decision_outcome", about)
