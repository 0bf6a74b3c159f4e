"""Drawn futures look like the recent past, and are the same for every candidate."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.futures import Lengths, draw_arrivals, draw_rest
from hmas_agents.situation import Served
from serving.contracts import ResidentPage, TraceRequest
from tests.agents.situations import NOW_S, situation, waiting
from tests.agents.states import long_state


def test_the_same_seed_is_the_same_future_and_another_one_is_not():
    assert draw_arrivals(situation(), 1, 30.0) == draw_arrivals(situation(), 1, 30.0)
    assert draw_arrivals(situation(), 1, 30.0) != draw_arrivals(situation(), 2, 30.0)
    assert draw_rest(situation(), 1) == draw_rest(situation(), 1)


@given(rate_rps=st.floats(1.0, 60.0), seed=st.integers(0, 10_000), until_s=st.floats(1.0, 60.0))
def test_a_steady_window_goes_on_at_its_rate(rate_rps, seed, until_s):
    drawn = draw_arrivals(situation(rate_rps), seed, until_s)
    arrivals = [request.arrival_s for request in drawn]
    assert arrivals == sorted(arrivals)
    assert all(0.0 <= at_s < until_s for at_s in arrivals)
    # Whole stretches of 5 s: each may hold one more or less at its ends.
    slack = 2 + until_s / 5 * 2
    assert abs(len(drawn) - rate_rps * until_s) <= slack + rate_rps * 0.5
    assert {request.prompt_tokens for request in drawn} <= {200, 1200}


def busier() -> tuple[TraceRequest, ...]:
    """2 requests/s for 50 s, then 20 requests/s for 10 s."""
    slow = [TraceRequest(i / 2, 200, 1, "a") for i in range(100)]
    return tuple(slow + [TraceRequest(50 + i / 20, 200, 1, "a") for i in range(200)])


def test_newer_stretches_come_more_often_above_all_after_an_alarm():
    def rate_rps(*alarms: str) -> float:
        now = situation(
            requests=busier(), span_s=60.0, state=long_state(now_s=NOW_S, alarms=alarms)
        )
        return float(np.mean([len(draw_arrivals(now, seed, 60.0)) / 60 for seed in range(40)]))

    overall_rps, newest_rps = 300 / 60, 20.0
    assert overall_rps < rate_rps() < rate_rps("rate_up") <= newest_rps


def test_a_false_alarm_leaves_a_sparse_stream_as_it_is():
    """At two requests a second the last block alone is ten: too few to tell rate or mix by."""
    steady = tuple(TraceRequest(i / 2, 200, 1, "a") for i in range(100))
    lull = tuple(TraceRequest(50.0 + 2.5 * i, 200, 1, "a") for i in range(4))  # by chance

    def rate_rps(*alarms: str) -> float:
        now = situation(
            requests=steady + lull, span_s=60.0, state=long_state(now_s=NOW_S, alarms=alarms)
        )
        return float(np.mean([len(draw_arrivals(now, seed, 60.0)) / 60 for seed in range(40)]))

    assert rate_rps("rate_down") > 0.8 * rate_rps() > 1.0


def test_bursts_and_tenants_of_one_stretch_stay_together():
    """A tenant that came in one stretch only brings its whole stretch with it."""
    requests = tuple(
        TraceRequest(float(i), 200, 1, "rare" if 20 <= i < 25 else "usual") for i in range(40)
    )
    drawn = draw_arrivals(situation(requests=requests, span_s=40.0), 3, 400.0)
    by_stretch = [
        Counter(r.tenant for r in drawn if 5 * k <= r.arrival_s < 5 * (k + 1)) for k in range(80)
    ]
    assert all(len(counts) == 1 for counts in by_stretch if counts)
    assert any("rare" in counts for counts in by_stretch)


@given(
    seen=st.lists(st.integers(1, 2000), max_size=60),
    longer_than=st.integers(0, 3000),
    seed=st.integers(0, 1000),
)
def test_an_answer_that_goes_on_gets_longer(seen, longer_than, seed):
    lengths = Lengths([Served("a", 100, 4096, tokens) for tokens in seen])
    drawn = lengths.draw(np.random.default_rng(seed), "a", 100, longer_than)
    assert drawn > longer_than
    tail = [tokens for tokens in seen if tokens > longer_than]
    assert not tail or drawn in tail


def test_the_narrowest_group_with_enough_answers_is_drawn_from():
    served = [Served("chat", 100, 512, 50)] * 20 + [Served("code", 100, 512, 7)] * 20
    lengths, rng = Lengths(served), np.random.default_rng(0)
    assert {lengths.draw(rng, "chat", 100) for _ in range(20)} == {50}
    assert {lengths.draw(rng, "code", 100) for _ in range(20)} == {7}
    assert {lengths.draw(rng, "new", 100) for _ in range(60)} == {50, 7}


def test_requests_inside_end_within_their_max_tokens():
    inside = tuple(waiting(i, 1.0, max_tokens=12, output_tokens=i) for i in range(12))
    rest = draw_rest(situation(inside=ResidentPage(NOW_S, inside)), 5)
    assert all(i < tokens <= 12 for i, tokens in enumerate(rest))


def test_an_idle_window_brings_nobody():
    assert draw_arrivals(situation(requests=(), span_s=0.0), 1, 30.0) == []
