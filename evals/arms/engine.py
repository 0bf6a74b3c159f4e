"""How do the evals get a simulated engine, and what does control cost there?

Stock vLLM is charged nothing. With the hook each step takes HOOK_STEP_S longer, and a decision acts
as much later than what it saw as it takes to make. Built late: importing it takes half a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from evals.arms.case import Counts, SimulatedCase
from evals.result.metrics import CaseRun
from evals.result.recording import AppliedDecision
from serving.contracts import Ack, Decision, Outcome, ResidentPage, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.protocol import Engine
from serving.engines.tickers import Ticker

if TYPE_CHECKING:
    from serving.engines.compiled import CompiledEngine


class RunnableEngine(Engine, Counts, Protocol):
    """An engine in virtual time that serves a whole workload in one call."""

    def run(
        self,
        requests: Sequence[TraceRequest],
        tickers: Sequence[Ticker] = (),
        until_s: float | None = None,
    ) -> list[Outcome]:
        """One outcome per request, in the order of `requests`."""
        ...


def run_on(
    engine: RunnableEngine, case: SimulatedCase, tickers: Sequence[Ticker] = (),
    decisions: Sequence[AppliedDecision] = (), *, until_s: float | None = None,
) -> CaseRun:  # fmt: skip
    """Serve a case's requests, until an earlier end where one is given.

    `tickers` are of whoever decides, `decisions` a list that gets what is decided.
    """
    engine.gaps_of_s = case.counted_s
    end_s = case.span.until_s if until_s is None else until_s
    return case.ran(engine.run(case.requests, tickers, end_s), engine, decisions)


# Seconds of CPU time, at the upper end of what was measured on two cores of an x86 server.
HOOK_STEP_S = 0.1e-3  # `hmas bench scheduler`: 0.05 ms at the median, below 0.1 ms in all cases
DECISION_S = 0.02  # `hmas bench tick`, its target at p99
LONG_DECISION_S = 1.0  # `hmas bench decision`, its target: with the twin's search

CHARGED = {
    "hook_step_s": HOOK_STEP_S, "decision_s": DECISION_S, "long_decision_s": LONG_DECISION_S
}  # fmt: skip

BuildEngine = Callable[[EngineProfile, EngineSettings, bool], RunnableEngine]


def build_simulated(
    profile: EngineProfile, settings: EngineSettings, stock: bool
) -> "CompiledEngine":
    """The compiled engine; `stock` means vLLM's own scheduling, without the hook."""
    from serving.engines.compiled import CompiledEngine

    class Charged(CompiledEngine):
        """With the hook, at its cost and that of whoever decides."""

        _looked_inside_s = -1.0

        def inside(self, limit: int = 5000) -> ResidentPage:
            """Only the long horizon asks for single requests: it decides next, if at all."""
            self._looked_inside_s = self.now()
            return super().inside(limit)

        def apply(self, decision: Decision) -> Ack:
            """Serve on while the decision is being made, then put it in force."""
            long = self._looked_inside_s == self.now()
            self.serve_on(LONG_DECISION_S if long else DECISION_S)
            return super().apply(decision)

    if stock:
        return CompiledEngine(profile, settings, stock=True)
    dearer = replace(profile.cost, base_s=profile.cost.base_s + HOOK_STEP_S)
    return Charged(replace(profile, cost=dearer), settings)
