"""What is one case (scenario, load, arm) of the simulator, and what does running it come to?

A case is one picklable item, because cases run in worker processes; `evals.baselines.run_case` runs
it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evals.arms import Arm, ControllerOptions
from evals.recording import AppliedDecision
from serving.contracts import Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

OnProgress = Callable[[int], None]
Chosen = Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One run of a case; `chosen` is what the arm chose for it, if it had a choice."""

    outcomes: Sequence[Outcome]
    decisions: Sequence[AppliedDecision]
    recomputed_tokens: int
    chosen: Chosen = field(default_factory=dict)


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
