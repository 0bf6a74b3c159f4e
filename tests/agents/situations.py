"""Situations to predict from: a small engine, in overload unless said otherwise."""

from dataclasses import replace
from typing import Any

from hmas_agents.situation import Served, Situation
from serving.contracts import (
    SLO_CLASSES,
    CostCoefficients,
    Envelope,
    KVState,
    Limits,
    ResidentPage,
    ResidentRequest,
    TraceRequest,
)
from serving.contracts.settings import EngineSettings
from tests.agents.states import long_state
from tests.hmas_agents.samples import snapshot

NOW_S = 1000.0
INTERACTIVE = SLO_CLASSES["interactive"]
SMALL = snapshot(
    NOW_S,
    policy="fcfs",
    limits=Limits(64, 2048, follow_slack=True),
    envelope=Envelope(64, 2048, 4096, 4000, 16),
    cost=CostCoefficients(0.0065, 35e-6, 35e-6),
    kv=KVState(total_blocks=4000),
)


def waiting(number: int, age_s: float, prompt_tokens: int = 600, **changes: Any) -> ResidentRequest:
    request = ResidentRequest(
        f"w{number}", NOW_S - age_s, "a", "interactive", INTERACTIVE, prompt_tokens, 64
    )
    return replace(request, **changes)


def window(rate_rps: float, span_s: float = 10.0) -> tuple[TraceRequest, ...]:
    """Long and short prompts in turns."""
    return tuple(
        TraceRequest(i / rate_rps, 1200 if i % 2 else 200, 1, "a", "interactive")
        for i in range(int(rate_rps * span_s))
    )


def situation(rate_rps: float = 40.0, **changes: Any) -> Situation:
    """Offered faster than the engine prefills: first come, first served is late for most."""
    base = Situation(
        snapshot=SMALL,
        state=long_state(now_s=NOW_S, policy="fcfs", load=1.5),
        requests=window(rate_rps),
        span_s=10.0,
        settings=EngineSettings(),
        inside=ResidentPage(NOW_S, tuple(waiting(i, 0.01 * i) for i in range(10))),
        served=tuple(Served("a", 600, 64, 10 + i % 20) for i in range(100)),
    )
    return replace(base, **changes)
