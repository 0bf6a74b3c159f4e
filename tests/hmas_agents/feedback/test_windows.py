"""Windows are bounded, join requests with outcomes, and cost O(1) amortised per event."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.feedback.windows import MAX_GROUPS, DecayedShare, OfferedWindow, TimeWindow
from serving.contracts import SLO
from tests.hmas_agents.samples import arrival, outcome

TIMES = st.lists(st.floats(0, 1000), max_size=200)


@given(times=TIMES, span_s=st.floats(0.1, 100), most=st.integers(1, 50))
def test_a_window_holds_the_newest_of_its_span(times, span_s, most):
    window: TimeWindow[float] = TimeWindow(span_s, most)
    for at_s in sorted(times):
        window.add(at_s, at_s)
        window.expire(at_s)
        assert len(window.events) <= most
    now_s = max(times, default=0.0)
    inside = [at_s for at_s in sorted(times) if at_s >= now_s - span_s]
    assert window.since(-math.inf) == inside[-most:]


@given(
    events=st.lists(st.tuples(st.integers(0, 80), st.floats(0, 500), st.booleans()), max_size=300),
    most=st.integers(1, 20),
)
def test_offered_requests_are_bounded_whatever_comes(events, most):
    window = OfferedWindow(60.0, most)
    for number, at_s, leaves in events:
        if leaves:
            window.leave(outcome(number, at_s))
        else:
            window.arrive(arrival(number, at_s))
        assert len(window.by_id) <= most
    window.expire(10_000.0)
    assert not window.by_id


def test_an_arrival_is_joined_with_its_outcome_once():
    window = OfferedWindow(60.0)
    assert window.arrive(arrival(1, 10.0))
    assert not window.arrive(arrival(1, 10.0))
    assert window.leave(outcome(1, 10.0))
    assert not window.leave(outcome(1, 10.0))
    (offered,) = window.between(0.0, 20.0)
    assert offered.outcome == outcome(1, 10.0)


def test_an_id_used_again_is_a_new_request():
    window = OfferedWindow(60.0)
    window.arrive(arrival(1, 10.0))
    window.leave(outcome(1, 10.0))
    assert window.arrive(arrival(1, 30.0))
    assert [o.outcome for o in window.between(0.0, 60.0)] == [None]


def test_an_outcome_without_its_arrival_stands_for_both():
    window = OfferedWindow(60.0)
    window.arrive(arrival(2, 12.0))
    assert window.leave(outcome(1, 10.0))
    assert [o.arrival_s for o in window.between(0.0, 60.0)] == [10.0, 12.0]


def test_between_is_half_open():
    window = OfferedWindow(60.0)
    for number, at_s in enumerate((10.0, 20.0)):
        window.arrive(arrival(number, at_s))
    assert [o.arrival_s for o in window.between(10.0, 20.0)] == [10.0]


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        (SLO(ttft_ms=500), 10.5),
        (SLO(ttft_ms=2000, e2e_ms=1000), 11.0),
        (SLO(tpot_ms=30), math.inf),
        (SLO(), math.inf),
    ],
)
def test_the_deadline_is_the_first_target(slo, expected):
    window = OfferedWindow(60.0)
    window.arrive(arrival(1, 10.0, slo=slo))
    assert window.by_id["r1"].deadline_s == expected


def test_an_event_halves_in_weight_every_half_life():
    share = DecayedShare(30.0)
    share.add("a", 0.0, met=False)
    share.add("a", 30.0, met=True)
    assert share.shares() == {"a": pytest.approx(1 / 1.5)}


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=600))
def test_shares_are_fractions_of_boundedly_many_groups(events):
    share = DecayedShare(30.0)
    for at_s, (group, met) in enumerate(events):
        share.add(f"t{group}", float(at_s), met)
    assert len(share.shares()) <= MAX_GROUPS
    assert all(0 <= value <= 1 for value in share.shares().values())
