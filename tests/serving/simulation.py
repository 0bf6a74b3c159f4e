"""How do the serving tests run a workload through vLLM's real scheduler in virtual time?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vllm.v1.core.sched.output import SchedulerOutput

from serving.contracts import Arrival, Limits, Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.simulated import SimulatedEngine
from serving.engines.tickers import Ticker

SETTINGS = EngineSettings()
Step = tuple[tuple[tuple[str, int], ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished workload: the engine, one outcome per request, and every step's schedule."""

    engine: SimulatedEngine
    outcomes: list[Outcome]
    steps: list[Step]

    @property
    def preemptions(self) -> int:
        """Requests preempted in all steps."""
        return sum(len(preempted) for *_, preempted in self.steps)

    @property
    def served(self) -> int:
        """Requests that got their whole answer."""
        return sum(outcome.finish == "stop" for outcome in self.outcomes)


def simulate(
    machine: EngineProfile,
    requests: Sequence[TraceRequest],
    *,
    stock: bool = False,
    by_priority: bool = False,
    settings: EngineSettings = SETTINGS,
    before: Callable[[SimulatedEngine], object] = lambda engine: None,
    tickers: Callable[[SimulatedEngine], list[Ticker]] = lambda engine: [],
) -> Run:
    """Serve `requests` on a fresh engine; `before` prepares it, `tickers` act meanwhile."""
    engine = SimulatedEngine(machine, settings, stock=stock, by_priority=by_priority)
    steps = list[Step]()
    before(engine)
    outcomes = engine.run(
        requests, tickers(engine), on_step=lambda output: steps.append(step_of(output))
    )
    return Run(engine, outcomes, steps)


def step_of(output: SchedulerOutput) -> Step:
    """Tokens per request in order, new and resumed requests in order, preempted ones."""
    cached = output.scheduled_cached_reqs
    return (
        tuple(output.num_scheduled_tokens.items()),
        tuple(new.req_id for new in output.scheduled_new_reqs),
        tuple(name for name in cached.req_ids if name in cached.resumed_req_ids),
        tuple(sorted(output.preempted_req_ids or ())),
    )


def journal_of(engine: SimulatedEngine) -> tuple[list[Arrival], list[Outcome]]:
    """The whole journal, read page by page; nothing may be lost."""
    arrivals, outcomes, cursor = list[Arrival](), list[Outcome](), 0
    while cursor < engine.snapshot().journal_head:
        page = engine.journal(cursor, limit=333)
        assert page.lost == 0
        arrivals += page.arrivals
        outcomes += page.outcomes
        cursor = page.cursor
    return arrivals, outcomes


def stock_limits(machine: EngineProfile, **changes: float) -> Limits:
    """The limits of an engine nobody steers, with changes."""
    fields = {
        "max_active_requests": machine.max_active_requests, "token_budget": machine.token_budget,
    }  # fmt: skip
    return Limits(**{**fields, **changes})  # type: ignore[arg-type]
