"""Successive halving finds what is better, and spends little on the rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.twin.question import Candidate, Question
from hmas_agents.twin.search import RUNG, search
from tests.agents.situations import situation


def question(count: int, kept: int = 1, futures: int = 32, limit_s: float | None = None):
    candidates = tuple(Candidate("edf", {"kappa": float(i)}) for i in range(count))
    return Question(situation(), candidates, kept, futures, 60.0, limit_s)


def noisy(true: np.ndarray, seed: int = 0):
    """Attainments around the true ones, with a part that all share in a future."""
    rng = np.random.default_rng(seed)
    shares = true[:, None] + rng.normal(0, 0.05, 64) + rng.normal(0, 0.01, (len(true), 64))
    return lambda i, future: float(np.clip(shares[i, future], 0, 1))


def test_the_best_of_hundreds_sees_every_future():
    true = np.full(256, 0.6)
    true[77] = 0.64
    said = search(question(256), noisy(true))
    full = [i for i, shares in enumerate(said.attainments) if len(shares) == 32]
    assert full == [0, 77]


@given(count=st.integers(2, 300), seed=st.integers(0, 1000), kept=st.integers(1, 5))
def test_the_search_costs_a_few_rungs(count, seed, kept):
    """One trial for each candidate, five rungs, and the futures of the kept ones."""
    kept, rng = min(kept, count), np.random.default_rng(seed)
    said = search(question(count, kept), noisy(rng.uniform(0.4, 0.8, count), seed))
    trials = sum(len(shares) for shares in said.attainments)
    assert trials <= count + 5 * RUNG + 32 * kept
    assert all(len(shares) == 32 for shares in said.attainments[:kept])


def test_all_see_the_same_futures():
    asked = []

    def attainment(i, future):
        asked.append((i, future))
        return 0.5 + 0.01 * i

    search(question(20), attainment)
    for i in range(20):
        futures = [future for one, future in asked if one == i]
        assert futures == list(range(len(futures)))


def test_where_nothing_is_to_be_had_the_others_are_tried_no_further():
    said = search(question(50, kept=2), lambda i, future: 1.0)
    assert [len(shares) for shares in said.attainments] == [32] * 2 + [2] * 48


def test_a_candidate_that_fails_costs_only_itself():
    def attainment(i, future):
        if i == 1:
            raise ValueError("no such policy")
        return 0.5 + 0.1 * (i == 2) + 0.0 * future

    said = search(question(3, kept=3), attainment)
    assert [len(shares) for shares in said.attainments] == [32, 0, 32]
    assert said.faults == ("twin_failed: no such policy",)


def test_without_what_is_in_force_there_is_nothing_to_compare_with():
    def attainment(i, future):
        if i == 0:
            raise ValueError("gone")
        return 0.5 + 0.0 * future

    assert [len(shares) for shares in search(question(3), attainment).attainments] == [0, 1, 1]


def test_what_was_not_tried_in_time_has_fewer_futures():
    said = search(question(3, limit_s=-1.0), lambda i, future: 0.5)
    assert said.attainments == ((), (), ())
    assert said.faults == ("twin_timeout: out of its time budget",)


@pytest.mark.parametrize("futures", [4, 10, 32])
def test_any_number_of_futures_is_used_up(futures):
    said = search(question(8, futures=futures), lambda i, future: 0.5 + 0.01 * i)
    assert len(said.attainments[0]) == len(said.attainments[7]) == futures
