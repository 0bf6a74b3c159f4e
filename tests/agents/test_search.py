"""Successive halving finds what is better, and spends little on the rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.twin.question import SHORTEST_S, Candidate, Question
from hmas_agents.twin.search import LEAST_FUTURES, MOST_S, RUNG
from hmas_agents.twin.search import search as search_trials
from serving.engines.branches import Forecast
from tests.agents.situations import situation


def question(count: int, kept: int = 1, futures: int = 32, limit_s: float | None = None):
    candidates = tuple(Candidate("edf", {"kappa": float(i)}) for i in range(count))
    return Question(situation(), candidates, kept, futures, 60.0, limit_s)


class Costly:
    """Trials of which each costs so much for each second of the look ahead and its tail."""

    def __init__(self, attainment, cost_s=lambda i: 0.0, horizon_s=60.0):
        self.attained, self.cost_s, self.horizon_s = attainment, cost_s, horizon_s
        self.work_s, self.dearest_s = 0.0, 0.0

    def forecast(self, candidate: Candidate, seed: int) -> Forecast:
        i = int(candidate.params["kappa"])
        spent_s = self.cost_s(i) * self.horizon_s / 60.0
        self.work_s += spent_s
        self.dearest_s = max(self.dearest_s, spent_s)
        share = float(self.attained(i, seed))
        return Forecast(share, share)

    def look_ahead(self, horizon_s: float) -> None:
        self.horizon_s = horizon_s


def search(question, attainment):
    return search_trials(question, Costly(attainment))


def noisy(true: np.ndarray, seed: int = 0):
    """Attainments around the true ones, with a part that all share in a future."""
    rng = np.random.default_rng(seed)
    shares = true[:, None] + rng.normal(0, 0.05, 64) + rng.normal(0, 0.01, (len(true), 64))
    return lambda i, future: float(np.clip(shares[i, future], 0, 1))


def test_the_best_of_hundreds_sees_every_future():
    true = np.full(256, 0.6)
    true[77] = 0.64
    said = search(question(256), noisy(true))
    full = [i for i, shares in enumerate(said.forecasts) if len(shares) == 32]
    assert full == [0, 77]


@given(count=st.integers(2, 300), seed=st.integers(0, 1000), kept=st.integers(1, 5))
def test_the_search_costs_a_few_rungs(count, seed, kept):
    """One trial for each candidate, five rungs, and the futures of the kept ones."""
    kept, rng = min(kept, count), np.random.default_rng(seed)
    said = search(question(count, kept), noisy(rng.uniform(0.4, 0.8, count), seed))
    trials = sum(len(shares) for shares in said.forecasts)
    assert trials <= count + 5 * RUNG + 32 * kept
    assert all(len(shares) == 32 for shares in said.forecasts[:kept])


def test_all_see_the_same_futures():
    asked = []

    def attainment(i, future):
        asked.append((i, future))
        return 0.5 + 0.01 * i

    search(question(20), attainment)
    for i in range(20):
        futures = [future for one, future in asked if one == i]
        assert futures == list(range(len(futures)))


def test_where_nothing_is_to_be_had_no_other_is_tried():
    said = search(question(50, kept=2), lambda i, future: 1.0)
    assert [len(shares) for shares in said.forecasts] == [32] * 2 + [0] * 48


def test_a_candidate_that_fails_costs_only_itself():
    def attainment(i, future):
        if i == 1:
            raise ValueError("no such policy")
        return 0.5 + 0.1 * (i == 2) + 0.0 * future

    said = search(question(3, kept=3), attainment)
    assert [len(shares) for shares in said.forecasts] == [32, 0, 32]
    assert said.faults == ("twin_failed: no such policy",)


def test_without_what_is_in_force_there_is_nothing_to_compare_with():
    def attainment(i, future):
        if i == 0:
            raise ValueError("gone")
        return 0.5 + 0.0 * future

    assert [len(shares) for shares in search(question(3), attainment).forecasts] == [0, 1, 1]


def test_what_was_not_tried_in_time_has_fewer_futures():
    said = search(question(3, limit_s=-1.0), lambda i, future: 0.5)
    assert said.forecasts == ((), (), ())
    assert said.faults == ("twin_timeout: out of its time budget",)


@pytest.mark.parametrize("futures", [4, 10, 32])
def test_any_number_of_futures_is_used_up(futures):
    said = search(question(8, futures=futures), lambda i, future: 0.5 + 0.01 * i)
    assert len(said.forecasts[0]) == len(said.forecasts[7]) == futures


@given(
    trial_ms=st.floats(0.1, 60.0), kept=st.integers(1, 4), count=st.integers(5, 300),
    seed=st.integers(0, 1000), dearer=st.floats(0.2, 3.0),
)  # fmt: skip
def test_the_work_stays_within_its_bound(trial_ms, kept, count, seed, dearer):
    """Whatever the others cost beside what is in force."""
    true = np.random.default_rng(seed).uniform(0.4, 0.8, count)
    trials = Costly(noisy(true, seed), lambda i: trial_ms / 1e3 * (dearer if i else 1.0))
    said = search_trials(question(count, kept), trials)
    assert said.work_s == trials.work_s <= MOST_S + trials.dearest_s
    assert len(said.forecasts[0]) >= LEAST_FUTURES
    assert all(said.forecasts[:kept])


def looked_at(trial_ms: float, kept: int = 1):
    """Candidates, futures of what is in force, and seconds that are looked ahead."""
    true = np.linspace(0.5, 0.8, 256)
    trials = Costly(noisy(true), lambda i: trial_ms / 1e3)
    said = search_trials(question(256, kept), trials)
    tried = [i for i, shares in enumerate(said.forecasts) if shares]
    assert tried == list(range(len(tried)))  # the last ones are left out
    return len(tried), len(said.forecasts[0]), said.horizon_s


def test_where_forecasts_are_dear_it_looks_at_less_in_turn():
    assert looked_at(trial_ms=0.5) == (256, 32, 60.0)
    tried, futures, horizon_s = looked_at(trial_ms=2.0)
    assert (tried < 150, futures, horizon_s) == (True, 32, 60.0)
    fewer, futures, shorter_s = looked_at(trial_ms=8.0)
    assert (fewer < tried, futures, SHORTEST_S < shorter_s < 60.0) == (True, 32, True)
    _, futures, shortest_s = looked_at(trial_ms=45.0)
    assert (futures, shortest_s) == (16, SHORTEST_S)


def test_the_finalists_meet_the_same_futures_where_there_are_fewer_of_these():
    true = np.full(100, 0.6)
    true[3] = 0.8
    said = search_trials(question(100), Costly(noisy(true), lambda i: 0.06))
    counts = [len(shares) for shares in said.forecasts]
    assert counts[0] == counts[3] == max(counts) < 32
    assert counts.count(counts[0]) == 2


def test_the_same_question_has_the_same_answer():
    true = np.linspace(0.5, 0.8, 256)
    said = [search_trials(question(256), Costly(noisy(true), lambda i: 0.004)) for _ in range(2)]
    assert said[0] == said[1]
