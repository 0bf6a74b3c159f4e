"""How do the evals get a simulated engine? Built late: importing it takes half a second."""

from collections.abc import Callable, Sequence
from typing import Protocol

from serving.contracts import Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.protocol import Engine
from serving.engines.tickers import Ticker


class RunnableEngine(Engine, Protocol):
    """An engine in virtual time that serves a whole workload in one call.

    Attributes:
        recomputed_tokens: computed tokens that preemptions threw away.
    """

    recomputed_tokens: int

    def run(
        self,
        requests: Sequence[TraceRequest],
        tickers: Sequence[Ticker] = (),
        until_s: float | None = None,
    ) -> list[Outcome]:
        """One outcome per request, in the order of `requests`."""
        ...


BuildEngine = Callable[[EngineProfile, EngineSettings, bool], RunnableEngine]


def build_simulated(
    profile: EngineProfile, settings: EngineSettings, stock: bool
) -> RunnableEngine:
    """The compiled engine; `stock` means vLLM's own scheduling, without the hook."""
    from serving.engines.compiled import CompiledEngine

    return CompiledEngine(profile, settings, stock=stock)
