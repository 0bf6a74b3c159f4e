"""The twin: real replays in its own process, within a budget, and it survives its worker."""

import pytest

from hmas_agents.config import TwinConfig
from hmas_agents.records import Proposal
from hmas_agents.twin import Twin
from serving.contracts import CostCoefficients, Limits, TraceRequest
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings

PROFILE = EngineProfile(
    "test", "made up", CostCoefficients(0.0065, 35e-6, 35e-6), 64, 2048, 4000, 16, 4096
)
LIMITS = Limits(64, 2048, follow_slack=True)
# Offered faster than the engine prefills: first come, first served is late for nearly all.
OVERLOAD = [
    TraceRequest(i / 70, 1200 if i % 2 else 200, 20, "a", "interactive") for i in range(240)
]
CANDIDATES = [Proposal("incumbent", "fcfs"), Proposal("rules", "slide")]


@pytest.fixture(scope="module")
def twin():
    twin = Twin(TwinConfig())
    yield twin
    twin.close()


def predict(twin: Twin, candidates=CANDIDATES, budget_s=None):
    return twin.predict(PROFILE, EngineSettings(), OVERLOAD, candidates, LIMITS, budget_s=budget_s)


def test_predictions_rank_policies_and_repeat(twin):
    fcfs, slide = predict(twin)
    assert slide > fcfs + 0.1
    assert predict(twin) == [fcfs, slide]
    assert twin.faults == []


def test_a_candidate_that_fails_costs_only_its_own_prediction(twin):
    bad, slide = predict(twin, [Proposal("model", "lottery"), Proposal("rules", "slide")])
    assert bad is None
    assert slide is not None
    assert twin.faults[0].startswith("twin_failed: ")
    assert "lottery" in twin.faults[0]


def test_out_of_budget_is_none_and_the_next_window_is_predicted_again(twin):
    assert predict(twin, budget_s=0.0) == [None, None]
    assert twin.faults == ["twin_timeout: out of its time budget"]
    assert None not in predict(twin)


def test_a_killed_worker_is_replaced(twin):
    twin._process.kill()
    twin._process.join()
    assert None not in predict(twin)


def test_the_margin_follows_the_measured_error():
    twin = Twin(TwinConfig(margin=0.02))
    assert (twin.error, twin.margin) == (None, 0.02)
    twin.observe(0.9, 0.8)
    assert twin.margin == pytest.approx(0.1)
    for _ in range(30):
        twin.observe(0.9, 0.9)
    assert twin.margin == 0.02
