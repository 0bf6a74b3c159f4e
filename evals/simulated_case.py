"""How is one case (scenario, load, arm) run in the simulator?

Module-level functions of one picklable item, because they run in worker processes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from evals.arms import (
    FIXED_CONTROLLER,
    Arm,
    ControllerOptions,
    controller_config,
    fixed_decision,
    limits_not_taken,
)
from evals.capacity import simulated_capacity_rps
from evals.metrics import CaseRun
from evals.recording import RecordedEngine
from evals.sim_engine import BuildEngine, RunnableEngine, build_simulated
from serving.contracts import Limits, Outcome, TraceRequest
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings

FIXED_TTL_S = 7200.0
RENEW_S = 3600.0


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """Everything one run needs; `requests` arrive on the clock of the load."""

    scenario: str
    load: float
    arm: Arm
    requests: tuple[TraceRequest, ...]
    profile: EngineProfile
    settings: EngineSettings
    drain_s: float
    controller: ControllerOptions


@dataclass(frozen=True, slots=True)
class CapacityCase:
    """A capacity to measure."""

    requests: tuple[TraceRequest, ...]
    profile: EngineProfile
    settings: EngineSettings


def measure_capacity(case: CapacityCase, on_progress: Callable[[int], None]) -> float:
    """Requests per second of a capacity case."""
    return simulated_capacity_rps(case.profile, case.settings, case.requests, on_progress)


def run_case(
    case: SimulatedCase,
    on_progress: Callable[[int], None],
    build_engine: BuildEngine = build_simulated,
) -> CaseRun:
    """Run one case until everything is served or the drain time is over."""
    engine = build_engine(case.profile, case.settings, case.arm.kind == "stock")
    recorded = RecordedEngine(engine)
    until_s = case.requests[-1].arrival_s + case.drain_s
    if case.arm.kind == "hmas":
        outcomes = _run_controlled(case, engine, recorded, until_s, on_progress)
    elif case.arm.kind == "fixed":
        outcomes = _run_fixed(case, engine, recorded, until_s, on_progress)
    else:
        outcomes = engine.run(case.requests, until_s=until_s, on_progress=on_progress)
    return CaseRun(
        case.scenario, case.load, case.arm.name, outcomes, recorded.decisions,
        preemptions=sum(outcome.preemptions for outcome in outcomes),
        recomputed_tokens=engine.recomputed_tokens,
    )  # fmt: skip


def _run_fixed(
    case: SimulatedCase,
    engine: RunnableEngine,
    recorded: RecordedEngine,
    until_s: float,
    on_progress: Callable[[int], None],
) -> list[Outcome]:
    limits = Limits(case.profile.max_active_requests, case.profile.token_budget)
    decision = fixed_decision(case.arm, limits, 1, FIXED_TTL_S)
    ack = recorded.apply(decision)
    if not ack.accepted:
        raise RuntimeError(f"{case.arm.name}: the engine refused: {ack.reason}")
    if changed := limits_not_taken(decision.limits, recorded.snapshot().limits):
        raise RuntimeError(f"{case.arm.name}: the engine runs with other limits: {changed}")

    def renew() -> None:
        renewed = recorded.renew(FIXED_CONTROLLER, FIXED_TTL_S)
        if not renewed.accepted:
            raise RuntimeError(f"{case.arm.name}: the lease was lost: {renewed.reason}")

    return engine.run(case.requests, ((RENEW_S, renew),), until_s, on_progress)


def _run_controlled(
    case: SimulatedCase,
    engine: RunnableEngine,
    recorded: RecordedEngine,
    until_s: float,
    on_progress: Callable[[int], None],
) -> list[Outcome]:
    from graphs.control_loop import ControlLoop

    config = controller_config(case.controller, {})
    loop = ControlLoop(
        recorded,
        config,
        case.controller.ledger_path,
        run_label=f"{case.scenario} {case.load:g}x {case.arm.name}",
    )
    try:
        loop.short_tick()  # in charge before the first request, as the fixed arms are
        tickers = (
            (config.control.short_tick_s, loop.short_tick),
            (config.control.long_tick_s, loop.long_tick),
        )
        return engine.run(case.requests, tickers, until_s, on_progress)
    finally:
        loop.close()
