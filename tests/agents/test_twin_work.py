"""What a decision of the twin may cost holds also where forecasts are dear. Counted, not timed."""

from dataclasses import replace

import pytest

from hmas_agents.situation import Served, Situation
from hmas_agents.twin import search
from hmas_agents.twin.candidates import candidates_for
from hmas_agents.twin.question import Answer, Candidate, Question
from hmas_agents.twin.worker import answer
from serving.contracts import Envelope, Limits, ResidentPage
from tests.agents.situations import NOW_S, SMALL, situation, waiting

PACED = Limits(256, 2048, follow_slack=True, pace_decodes=True)


def long_answers(running: int, waits: int) -> Situation:
    """So many are answered at length, at paces that their batch cannot keep."""
    answered = tuple(
        waiting(
            i, 30.0, 300, max_tokens=4000, running=True, admitted_s=NOW_S - 29.0,
            first_token_s=NOW_S - 28.0, computed_tokens=500 + i, output_tokens=201 + i,
        )
        for i in range(running)
    )  # fmt: skip
    queued = tuple(waiting(running + i, 0.001 * i) for i in range(waits))
    return situation(
        4.0,
        snapshot=replace(
            SMALL, policy="edf", limits=PACED, envelope=Envelope(256, 2048, 8192, 60_000, 16)
        ),
        inside=ResidentPage(NOW_S, answered + queued),
        served=tuple(Served("a", 300, 4000, 2000 + 10 * i) for i in range(100)),
    )


def decided(one: Situation, futures: int = 32) -> Answer:
    others = candidates_for(one.snapshot, ("fcfs", "edf", "sjf"), 60)
    candidates = (Candidate("edf"), *others)
    return answer(Question(one, candidates, kept=1, futures=futures, horizon_s=60.0))


@pytest.mark.parametrize(("running", "waits"), [(200, 300), (50, 5000)])
def test_a_decision_stays_within_its_work(running, waits):
    said = decided(long_answers(running, waits))
    assert said.faults == ()
    assert 0.1 < said.work_s < 1.1 * search.MOST_S
    assert len(said.forecasts[0]) >= search.LEAST_FUTURES
    assert sum(bool(shares) for shares in said.forecasts) > search.LEAST_ENTERING / 2


def test_without_the_bound_it_would_take_several_times_as_long(monkeypatch):
    most_s = search.MOST_S
    monkeypatch.setattr(search, "PLANNED_S", 1e9)
    monkeypatch.setattr(search, "MOST_S", 1e9)
    assert decided(long_answers(200, 300), futures=8).work_s > 2 * most_s


def test_a_bound_decision_comes_out_the_same_again():
    one = long_answers(200, 300)
    assert decided(one) == decided(one)
