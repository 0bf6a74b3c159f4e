"""Situations and cases with everything filled in, made by hand: no simulator, no vLLM."""

from dataclasses import replace
from typing import Any

from hmas_agents.case_file import Case, Plan
from hmas_agents.situation import Served, Situation
from serving.contracts import SLO, ResidentPage, ResidentRequest, TraceRequest, with_classes
from serving.contracts.settings import EngineSettings
from tests.agents.states import long_state
from tests.hmas_agents.samples import snapshot

ALLOWED = ("fcfs", "edf", "slide")
PLAN = Plan(draws=2, seed=7, horizon_s=20.0)


def situation(policy: str = "edf", **state: Any) -> Situation:
    """The engine at second 100 under `policy`, with 40 arrivals and one request inside."""
    return Situation(
        snapshot=snapshot(100.0, policy=policy),
        state=replace(long_state(now_s=100.0, policy=policy), **state),
        requests=tuple(TraceRequest(i / 2, 100 + i, 20, "acme", "interactive") for i in range(40)),
        span_s=20.0,
        settings=EngineSettings(contract=with_classes({"interactive": SLO(500, 30)})),
        inside=ResidentPage(
            100.0,
            (
                ResidentRequest(
                    "q1", 99.5, "acme", "interactive", SLO(ttft_ms=500), 300, 50, running=True
                ),
            ),
        ),
        served=(Served("acme", 100, 50, 20),),
    )


def case(
    id_: str = "c1", *, scenario: str = "calm", split: Any = "development", **changes: Any
) -> Case:
    """A labelled case: slide is best, edf half a point worse, fcfs far behind."""
    base = Case(
        id=id_,
        scenario=scenario,
        split=split,
        situation=situation(),
        allowed=ALLOWED,
        labels={"fcfs": (0.545, 0.555), "edf": (0.895, 0.905), "slide": (0.9, 0.91)},
        plan=PLAN,
        twin={"fcfs": (0.4,), "edf": (0.8,), "slide": (0.7,)},
        provenance={"kind": "simulated"},
    )
    return replace(base, **changes)
