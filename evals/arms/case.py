"""What is one case (scenario, load, seed, arm) of the simulator, and what does a run come to?

A case is one picklable item, because cases run in worker processes; `evals.arms.run_case`
runs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evals.result.metrics import CaseRun, Facts
from evals.result.recording import AppliedDecision
from evals.suite.arms import Arm, ControllerOptions
from evals.suite.tuned import TunedMachine
from hmas_agents.situation import Expected
from serving.contracts import SLO, Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.offered import promised_to
from serving.engines.profile import EngineProfile
from serving.policies.base import seconds

CaseId = tuple[str, float, int, str]  # scenario, load, seed, arm


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """Everything one run needs; `requests` arrive on the clock of the load.

    Attributes:
        seed: decides what an arm draws; everything else is drawn already.
        warmup_s: requests that arrive in this time are served and count for nothing.
        tuned: of the development half, for arms that read it.
        expected: changes of traffic as they were announced, for `hmas-announced`.
        facts: what the result says beside the figures.
        moments_s: when traffic changes.
        length_s: of the time in which requests may arrive, from 0 s on; 0: until the last does.
        keep_outcomes: whether single requests are wanted, or only their figures.
    """

    scenario: str
    load: float
    arm: Arm
    requests: Sequence[TraceRequest]
    profile: EngineProfile
    settings: EngineSettings
    drain_s: float
    controller: ControllerOptions
    seed: int = 0
    warmup_s: float = 0.0
    tuned: TunedMachine | None = None
    expected: tuple[Expected, ...] = ()
    facts: Facts = field(default_factory=dict)
    moments_s: tuple[float, ...] = ()
    length_s: float = 0.0
    keep_outcomes: bool = True

    @property
    def id(self) -> CaseId:
        """What tells it from the other cases of its suite."""
        return self.scenario, self.load, self.seed, self.arm.name

    @property
    def title(self) -> str:
        """How progress and errors name it."""
        return f"{self.scenario} {self.load:g}x {self.arm.name} seed {self.seed}"

    @property
    def tuned_machine(self) -> TunedMachine:
        """What was tuned; an error where the case was built without."""
        if self.tuned is None:
            raise ValueError(f"{self.title}: needs what `hmas eval tune` finds")
        return self.tuned

    @property
    def from_s(self) -> float:
        """From when on requests count."""
        return self.warmup_s

    @property
    def counted_until_s(self) -> float:
        """Until when requests arrive, and count."""
        return self.length_s or self.requests[-1].arrival_s

    @property
    def until_s(self) -> float:
        """When the run ends, whatever is still inside."""
        return self.counted_until_s + self.drain_s

    def targets_ms(self) -> NDArray[np.float64]:
        """Of TTFT, TPOT and E2E, infinite where nothing was promised, shape (requests, 3)."""
        known: dict[tuple[str, str, SLO | None], tuple[float, ...]] = {}

        def targets(one: TraceRequest) -> tuple[float, ...]:
            key = one.tenant, one.slo_class, one.slo
            if key not in known:
                slo = promised_to(one, self.settings)[1]
                known[key] = tuple(
                    1000 * seconds(each) for each in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms)
                )
            return known[key]

        return np.array([targets(one) for one in self.requests])

    def ran(
        self, outcomes: Sequence[Outcome], recomputed_tokens: int = 0,
        decisions: Sequence[AppliedDecision] = (),
    ) -> CaseRun:  # fmt: skip
        """What a run of the case came to."""
        return CaseRun(
            self.scenario, self.load, self.arm.name, outcomes, decisions,
            preemptions=sum(outcome.preemptions for outcome in outcomes),
            recomputed_tokens=recomputed_tokens,
        )  # fmt: skip

    def met(self, run: CaseRun) -> int:
        """Requests that met all their SLOs: goodput times the span, which all arms share."""
        return sum(outcome.met for outcome in run.outcomes if outcome.arrival_s >= self.from_s)

    def share_met(self, run: CaseRun) -> float:
        """The same as a share of the requests that count."""
        counted = sum(outcome.arrival_s >= self.from_s for outcome in run.outcomes)
        return self.met(run) / counted if counted else 0.0
