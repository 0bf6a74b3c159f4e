"""The twin: real replays from the present state, within a budget; it survives its worker."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hmas_agents import twin_worker
from hmas_agents.config import TwinConfig
from hmas_agents.prediction import Prediction
from hmas_agents.records import Proposal
from hmas_agents.twin import SHORTEST_S, Twin
from hmas_agents.twin_process import TwinProcess
from serving.contracts import Limits
from tests.agents.scripted import Scripted
from tests.agents.situations import situation

CONFIG = TwinConfig(horizon_s=10.0, draws=2)
CANDIDATES = [Proposal("incumbent", "fcfs"), Proposal("rules", "slide")]


@pytest.fixture(scope="module")
def process():
    process = TwinProcess()
    yield process
    process.close()


@pytest.fixture
def twin(process):
    return Twin(CONFIG, forecaster=process)


def proposals(*policies: str) -> list[Proposal]:
    return [Proposal("twin", policy) for policy in policies]


def test_predictions_rank_policies_and_repeat(twin):
    fcfs, slide = twin.predict(situation(), CANDIDATES)
    assert slide.mean > fcfs.mean + 0.1
    assert twin.predict(situation(), CANDIDATES) == [fcfs, slide]
    assert len(fcfs.attainments) == CONFIG.draws
    assert twin.faults == []


def test_a_candidate_that_fails_costs_only_its_own_prediction(twin):
    fcfs, bad, slide = twin.predict(
        situation(), [CANDIDATES[0], Proposal("model", "lottery"), CANDIDATES[1]]
    )
    assert bad is None
    assert None not in {fcfs, slide}
    assert twin.faults[0].startswith("twin_failed: ")
    assert "lottery" in twin.faults[0]


def test_out_of_budget_is_none_and_the_next_window_is_predicted_again(twin):
    twin.predict(situation(), CANDIDATES)  # warm
    assert twin.predict(situation(), CANDIDATES, budget_s=0.0) == [None, None]
    assert twin.faults == ["twin_timeout: out of its time budget"]
    assert None not in twin.predict(situation(), CANDIDATES)


def test_a_killed_worker_is_replaced(twin, process):
    process._process.kill()
    process._process.join()
    assert None not in twin.predict(situation(), CANDIDATES)


def test_all_are_tried_once_and_the_two_best_against_the_incumbent_go_on():
    scripted = Scripted(fcfs=0.5, edf=0.6, slide=0.8, sjf=0.7)
    twin = Twin(TwinConfig(draws=3), forecaster=scripted)
    predictions = twin.predict(situation(), proposals("fcfs", "edf", "slide", "sjf"))
    assert [p and len(p.attainments) for p in predictions] == [3, 1, 3, 3]
    assert [policy for policy, seed in scripted.asked if seed == 2] == ["fcfs", "slide", "sjf"]


def test_who_does_not_lead_by_half_of_the_least_gain_is_tried_no_further():
    scripted = Scripted(fcfs=0.5, edf=0.51, slide=0.52, sjf=0.4)
    twin = Twin(TwinConfig(draws=3, margin=0.03), forecaster=scripted)
    predictions = twin.predict(situation(), proposals("fcfs", "edf", "slide", "sjf"))
    assert [p and len(p.attainments) for p in predictions] == [3, 1, 3, 1]


def test_who_falls_behind_is_tried_no_further():
    scripted = Scripted(fcfs=0.5, slide=[0.6, 0.42, 0.9])
    twin = Twin(TwinConfig(draws=3, margin=0.03), forecaster=scripted)
    _, slide = twin.predict(situation(), proposals("fcfs", "slide"))
    assert slide == Prediction((0.6, 0.42))


def test_an_incumbent_that_nobody_leads_is_tried_twice():
    scripted = Scripted(fcfs=0.5, edf=0.5, slide=0.4)
    twin = Twin(TwinConfig(draws=4), forecaster=scripted)
    predictions = twin.predict(situation(), proposals("fcfs", "edf", "slide"))
    assert [p and len(p.attainments) for p in predictions] == [2, 1, 1]


def test_without_the_incumbent_there_is_nothing_to_compare_with():
    scripted = Scripted(fcfs="broken", slide=0.6)
    twin = Twin(TwinConfig(draws=3), forecaster=scripted)
    assert twin.predict(situation(), proposals("fcfs", "slide")) == [None, Prediction((0.6,))]


def test_limits_that_come_with_a_switch_are_those_of_the_candidates_alone(monkeypatch):
    scripted, narrow = Scripted(fcfs=0.5, slide=0.8), Limits(4, 256)
    twin = Twin(TwinConfig(draws=1), forecaster=scripted)
    twin.predict(situation(), proposals("fcfs", "slide"), limits=narrow)
    assert scripted.limits == {"fcfs": None, "slide": narrow}

    def seen(situation, *_, **__):
        return SimpleNamespace(attainment=situation.limits.token_budget / 1e6)

    monkeypatch.setattr(twin_worker, "forecast", seen)
    ask = twin_worker.Ask("slide", {}, 0, 10.0)
    assert twin_worker.answer(situation(), replace(ask, limits=narrow)) == 256e-6
    assert twin_worker.answer(situation(), ask) == situation().limits.token_budget / 1e6


def test_nothing_else_is_tried_where_nothing_is_to_be_had():
    scripted = Scripted(fcfs=0.995, slide=1.0)
    twin = Twin(TwinConfig(margin=0.01), forecaster=scripted)
    assert twin.predict(situation(), proposals("fcfs", "slide"))[1] is None
    assert scripted.asked == [("fcfs", 0)]


def test_what_was_found_before_the_time_was_up_counts():
    scripted = Scripted(fcfs=0.5, slide=0.8, sjf="lost")
    twin = Twin(TwinConfig(), forecaster=scripted)
    fcfs, slide, sjf = twin.predict(situation(), proposals("fcfs", "slide", "sjf"))
    assert (fcfs, slide, sjf) == (Prediction((0.5,)), Prediction((0.8,)), None)
    assert twin.faults == ["twin_timeout: out of its time budget"]


def test_it_looks_less_far_ahead_where_many_come():
    twin = Twin(TwinConfig(horizon_s=60.0, max_requests=400), forecaster=Scripted())
    assert twin.horizon_s(situation(rate_rps=2.0)) == 60.0
    assert twin.horizon_s(situation(rate_rps=20.0)) == pytest.approx(20.0, rel=0.01)
    assert twin.horizon_s(situation(rate_rps=400.0)) == SHORTEST_S


def test_the_margin_follows_the_measured_error_of_this_and_earlier_runs():
    twin = Twin(TwinConfig(margin=0.02), past=[(0.9, 0.5)] * 5, forecaster=Scripted())
    slide, fcfs = Prediction((0.7,) * 3), Prediction((0.5,) * 3)
    assert twin.error == pytest.approx(0.4)
    _, wide = twin.weigh(slide, fcfs)
    for _ in range(30):
        twin.observe(0.9, 0.92)
    gained, narrow = twin.weigh(slide, fcfs)
    assert gained == pytest.approx(0.2)
    assert 0.02 <= narrow < 0.03 < wide
