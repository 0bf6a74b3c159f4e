"""How is one case (scenario, load, arm) run in the simulator?

Module-level functions of one picklable item, because they run in worker processes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from evals.arms import Arm, ControllerOptions
from evals.baselines import run_baseline
from evals.baselines.arm_run import ArmRun
from evals.baselines.controlled import run_hmas
from evals.baselines.fixed import run_fixed
from evals.baselines.tuned import run_stock
from evals.metrics import CaseRun
from evals.sim_engine import BuildEngine, build_simulated
from serving.contracts import TraceRequest
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """Everything one run needs; `requests` arrive on the clock of the load.

    `seed` decides what an arm draws; everything else is drawn already. Requests that arrive
    in the first `warmup_s` are served, but do not count where an arm chooses in hindsight.
    `shortlist` has the arms that `hindsight-switching` switches among.
    """

    scenario: str
    load: float
    arm: Arm
    requests: tuple[TraceRequest, ...]
    profile: EngineProfile
    settings: EngineSettings
    drain_s: float
    controller: ControllerOptions
    seed: int = 0
    warmup_s: float = 0.0
    shortlist: tuple[str, ...] = ()

    @property
    def until_s(self) -> float:
        """When the run ends, whatever is still inside."""
        return self.requests[-1].arrival_s + self.drain_s

    def met(self, run: ArmRun) -> int:
        """Requests that met all their SLOs: goodput times the span, which all arms share."""
        from_s = self.requests[0].arrival_s + self.warmup_s
        return sum(outcome.met for outcome in run.outcomes if outcome.arrival_s >= from_s)


def run_case(
    case: SimulatedCase,
    on_progress: Callable[[int], None],
    build_engine: BuildEngine = build_simulated,
) -> CaseRun:
    """Run one case until everything is served or the drain time is over."""
    run = run_arm(case, on_progress, build_engine)
    return CaseRun(
        case.scenario, case.load, case.arm.name, run.outcomes, run.decisions,
        preemptions=sum(outcome.preemptions for outcome in run.outcomes),
        recomputed_tokens=run.recomputed_tokens, chosen=run.chosen,
    )  # fmt: skip


def run_arm(
    case: SimulatedCase, on_progress: Callable[[int], None], build_engine: BuildEngine
) -> ArmRun:
    """What the case's arm makes of it."""
    if case.arm.kind == "stock":
        return run_stock(case, case.profile, on_progress, build_engine)
    if case.arm.kind == "fixed":
        return run_fixed(case, case.arm, on_progress, build_engine)
    if case.arm.kind == "hmas":
        return run_hmas(case, on_progress, build_engine)
    return run_baseline(case, on_progress, build_engine)
