"""What is one case (scenario, load, seed, arm) of the simulator, and what does a run come to?

A case is one picklable item, because cases run in worker processes; `evals.arms.run_case`
runs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evals.result.metrics import CaseRun, Facts
from evals.result.recording import AppliedDecision
from evals.suite.arms import Arm, ControllerOptions
from evals.suite.shapes import Span
from evals.suite.tuned import TunedMachine
from hmas_agents.intent.told import ToldChange
from hmas_agents.situation import Expected
from serving.contracts import SLO, Contract, Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.gaps import gap_percentile
from serving.engines.offered import promised_to
from serving.engines.profile import EngineProfile
from serving.policies.base import seconds


class Counts(Protocol):
    """What every virtual engine counts.

    Attributes:
        recomputed_tokens: computed tokens that preemptions threw away.
        gaps_of_s: gaps between tokens of requests that arrive in this time are counted.
        gap_counts: these, in the bins of `serving.engines.gaps`.
    """

    recomputed_tokens: int
    gaps_of_s: tuple[float, float]
    gap_counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Said:
    """A text that is said and approved at `at_s`, and what was understood of it: maybe nothing."""

    at_s: float
    text: str
    changes: tuple[ToldChange, ...]


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """Everything one run needs; `requests` arrive on the clock of the load."""

    scenario: str
    load: float
    arm: Arm
    requests: Sequence[TraceRequest]
    profile: EngineProfile
    settings: EngineSettings
    span: Span  # how long the case is, and what of it counts
    controller: ControllerOptions
    seed: int = 0  # decides what an arm draws; everything else is drawn already
    tuned: TunedMachine | None = None  # of the development half, for arms that read it
    # Changes of traffic as they were announced, for `hmas-announced`.
    expected: tuple[Expected, ...] = ()
    said: tuple[Said, ...] = ()  # what operators say to the arm
    # The contract that weighs what is met, whoever was told, and from when on; none: as `settings`.
    wanted: tuple[tuple[float, Contract], ...] = ()
    # Tenants and SLO classes that words are about; None is any.
    named: tuple[tuple[str | None, str | None], ...] = ()
    facts: Facts = field(default_factory=dict)  # what the result says beside the figures
    moments_s: tuple[float, ...] = ()  # when traffic changes
    keep_outcomes: bool = True  # whether single requests are wanted, or only their figures

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

    @property
    def counted_s(self) -> tuple[float, float]:
        """From when to when requests must arrive to count."""
        return self.span.warmup_s, self.span.counted_until_s

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which requests count, shape (requests,)."""
        return np.array([self.span.counts(one.arrival_s) for one in self.requests])

    def ran(
        self, outcomes: Sequence[Outcome], engine: Counts | None = None,
        decisions: Sequence[AppliedDecision] = (),
    ) -> CaseRun:  # fmt: skip
        """What a run of the case came to; of no `engine` nothing was served."""
        counts = np.zeros(0, np.int64) if engine is None else engine.gap_counts
        return CaseRun(
            self.scenario, self.load, self.arm.name, outcomes, decisions,
            preemptions=sum(outcome.preemptions for outcome in outcomes),
            recomputed_tokens=0 if engine is None else engine.recomputed_tokens,
            itl_s={
                "p50": gap_percentile(counts, 50), "p99": gap_percentile(counts, 99),
                "max": gap_percentile(counts, 100),
            },
        )  # fmt: skip

    def met(self, run: CaseRun) -> int:
        """Requests that count and met all their SLOs."""
        return sum(one.met for one in run.outcomes if self.span.counts(one.arrival_s))

    def cut_off(self, run: CaseRun) -> int:
        """Requests that count and at the end were unfinished, but not late: the tail was short."""
        return sum(self.span.counts(one.arrival_s) and _not_late(one) for one in run.outcomes)

    def share_met(self, run: CaseRun) -> float:
        """The same as a share of the requests that count."""
        counted = sum(self.span.counts(one.arrival_s) for one in run.outcomes)
        return self.met(run) / counted if counted else 0.0


def _not_late(one: Outcome) -> bool:
    """Whether a request was unfinished at the end of a run, and had missed nothing by then."""
    if one.finish != "unfinished" or one.miss != "not_served":
        return False
    due_s = min(seconds(one.slo.ttft_ms), seconds(one.slo.e2e_ms))
    return one.ttft_s is not None or one.e2e_s < due_s
