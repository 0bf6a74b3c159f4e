"""The twin: real replays from the present state, within a budget; it survives its worker."""

from dataclasses import replace

import pytest

from hmas_agents.config import TwinConfig
from hmas_agents.twin.prediction import Past, Prediction
from hmas_agents.twin.process import InProcess, TwinProcess
from hmas_agents.twin.question import SHORTEST_S, Candidate
from hmas_agents.twin.twin import Twin
from serving.contracts import Limits
from tests.agents.scripted import Scripted, forecasts
from tests.agents.situations import situation

CONFIG = TwinConfig(horizon_s=10.0, draws=4)
CANDIDATES = [Candidate("fcfs"), Candidate("slide")]


@pytest.fixture(scope="module")
def process():
    process = TwinProcess()
    yield process
    process.close()


@pytest.fixture
def twin(process):
    return Twin(CONFIG, forecaster=process)


def test_predictions_rank_policies_and_repeat(twin):
    fcfs, slide = twin.predict(situation(), CANDIDATES, kept=2)
    assert slide.mean > fcfs.mean + 0.1
    assert twin.predict(situation(), CANDIDATES, kept=2) == [fcfs, slide]
    assert len(fcfs.forecasts) == CONFIG.draws
    assert fcfs.offered > 100
    assert twin.faults == []


def test_the_process_says_what_is_computed_at_once(twin):
    inline = Twin(CONFIG, forecaster=InProcess())
    said = inline.predict(situation(), CANDIDATES, kept=2)
    assert said == twin.predict(situation(), CANDIDATES, kept=2)


def test_limits_that_come_with_a_candidate_are_its_own(twin):
    rushed = situation(snapshot=replace(situation().snapshot, limits=Limits(64, 2048)))
    narrow = Candidate("fcfs", limits={"max_active_requests": 1})
    wide, one_at_a_time = twin.predict(rushed, [CANDIDATES[0], narrow], kept=2)
    assert one_at_a_time.mean < wide.mean


def test_a_candidate_that_fails_costs_only_its_own_prediction(twin):
    fcfs, bad, slide = twin.predict(
        situation(), [CANDIDATES[0], Candidate("lottery"), CANDIDATES[1]], kept=3
    )
    assert bad is None
    assert None not in {fcfs, slide}
    assert twin.faults[0].startswith("twin_failed: ")
    assert "lottery" in twin.faults[0]


def test_out_of_budget_is_none_and_the_next_window_is_predicted_again(twin):
    twin.predict(situation(), CANDIDATES, kept=2)  # warm
    assert twin.predict(situation(), CANDIDATES, kept=2, budget_s=0.0) == [None, None]
    assert twin.faults == ["twin_timeout: out of its time budget"]
    assert None not in twin.predict(situation(), CANDIDATES, kept=2)


def test_a_killed_worker_is_replaced(twin, process):
    process._process.kill()
    process._process.join()
    assert None not in twin.predict(situation(), CANDIDATES, kept=2)


def test_a_worker_that_is_lost_is_a_fault_and_no_prediction():
    twin = Twin(CONFIG, forecaster=Scripted(fcfs=0.5, slide="lost"))
    assert twin.predict(situation(), CANDIDATES, kept=2) == [None, None]
    assert twin.faults == ["twin_timeout: out of its time budget"]


def test_it_looks_less_far_ahead_where_many_come():
    twin = Twin(TwinConfig(horizon_s=60.0, max_requests=400), forecaster=Scripted())
    assert twin.horizon_s(situation(rate_rps=2.0)) == 60.0
    assert twin.horizon_s(situation(rate_rps=20.0)) == pytest.approx(20.0, rel=0.01)
    assert twin.horizon_s(situation(rate_rps=400.0)) == SHORTEST_S


def test_intervals_follow_what_became_of_predictions_in_this_and_earlier_runs():
    twin = Twin(TwinConfig(), [Past(0.9, 0.02, 0.5)] * 20, Scripted())
    prediction = Prediction(forecasts((0.69, 0.71) * 16), 400.0)
    assert twin.calibration.error == pytest.approx(0.4)
    low, _ = twin.calibration.interval(prediction)
    for _ in range(60):
        twin.observe(Past(0.9, 0.02, 0.91))
    narrow, high = twin.calibration.interval(prediction)
    assert low < 0.5
    assert 0.7 < narrow <= high < 0.71
