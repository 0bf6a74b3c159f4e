"""A machine and a workload small enough to simulate a dozen times in a test."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evals.arms.case import SimulatedCase
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.shapes import Span
from evals.suite.tuned import StockSetting, TunedMachine
from serving.contracts import CostCoefficients, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.gaps import NEVER
from serving.engines.profile import EngineProfile
from tests.evals.samples import outcome
from tests.fakes import FakeEngine

# 200 prefill tokens take 20 ms; two long prompts in a step make every answer stall.
MACHINE = EngineProfile(
    "test", "made up", CostCoefficients(5e-3, 100e-6, 100e-6), 32, 2048, 4000, 16, 4096
)

TUNED = TunedMachine(
    stock=StockSetting(token_budget=512, max_num_seqs=16, max_num_queued_tokens=4000),
    best_fixed="fixed-edf:kappa=10+slack+serial+triage",
    threshold=(("waiting", 4.0, 1, 2), ("fixed-edf+slack",), ("fixed-sjf+rules",)),
    tree=(
        ("load", 0.8, 1, 2), ("fixed-fcfs",), ("missed", 0.1, 3, 4), ("fixed-edf",),
        ("fixed-density",),
    ),
)  # fmt: skip


def workload(count: int, rate_rps: float, seed: int = 7) -> tuple[TraceRequest, ...]:
    """Poisson arrivals, lognormal lengths, two tenants with an SLO class each."""
    draw, now_s, requests = random.Random(seed), 0.0, []
    for _ in range(count):
        now_s += draw.expovariate(rate_rps)
        prompt, output = int(draw.lognormvariate(6.0, 0.9)), int(draw.lognormvariate(3.0, 0.6))
        tenant, slo_class = draw.choice([("a", "interactive"), ("b", "conversational")])
        requests.append(
            TraceRequest(now_s, max(1, min(prompt, 3000)), max(2, output), tenant, slo_class)
        )
    return tuple(requests)


def case(
    arm: str,
    requests: tuple[TraceRequest, ...] | None = None,
    *,
    controller: ControllerOptions | None = None,
    seed: int = 0,
) -> SimulatedCase:
    """A case of an arm; by default 80 requests at about one and a half times capacity."""
    return SimulatedCase(
        "small", 1.5, parse_arm(arm), workload(80, 25.0) if requests is None else requests,
        MACHINE, EngineSettings(), Span(240.0), controller or ControllerOptions(), seed,
        tuned=TUNED,
    )  # fmt: skip


@dataclass
class FakeSimulator(FakeEngine):
    """Serves request i one second after the last; calls each ticker twice, a minute apart."""

    stock: bool = False
    recomputed_tokens: int = 70
    gaps_of_s: tuple[float, float] = NEVER
    gap_counts: Any = field(default_factory=lambda: np.bincount([300] * 7))
    ran: list[Any] = field(default_factory=list)

    def run(self, requests, tickers=(), until_s=None):
        self.ran.append((tuple(requests), [period_s for period_s, _ in tickers], until_s))
        for _, tick in tickers:
            tick()
            self.now_s += 61.0
            tick()
        return [outcome(i, finished_s=float(i), preemptions=i) for i in range(len(requests))]
